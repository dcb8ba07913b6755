"""Which layer of the teacher a layer of the student learns from.

    student    0  1  2  3                   0 the embeddings, n the output of layer n
    uniform    0  2  4  6                   teacher of 6 layers (TinyBERT, arXiv 1909.10351: g(m) = m N / M)
    skip          2  4                      the same without embeddings and last layer (PKD-Skip, arXiv 1908.09355)
    last          4  5                      the teacher's last layers but one (PKD-Last)
    first         1  2                      its first layers (MPDistil's published code)
    top                 6                   3:6, last layer and last layer (DistilBERT, arXiv 1910.01108, L_cos)
"""

import re

LAYER_MAPS = ("uniform", "skip", "last", "first", "top")
SHALLOW = 12  # layers; the relations of deeper teachers are read below their top


def layer_pairs(spec: str, student: int, teacher: int) -> tuple[tuple[int, int], ...]:
    """Pairs (student layer, teacher layer) for models of `student` and `teacher` layers.

    `spec`: uniform, skip, last, first or top, or pairs as 1:2,2:4. ValueError for anything else.
    """
    uniform = tuple((layer, round(layer * teacher / student)) for layer in range(student + 1))
    if spec == "uniform":
        return uniform
    if spec == "top":
        return ((student, teacher),)
    if spec in LAYER_MAPS:
        if student == 1:
            raise ValueError(f"--layer_map {spec}: a student of one layer has none below its last; give pairs, as 1:{teacher}")
        if spec == "skip":
            return uniform[1:-1]
        if spec == "first":
            return tuple((layer, layer) for layer in range(1, min(student, teacher)))
        if student > teacher:
            raise ValueError(f"--layer_map last: the student has {student} layers, the teacher only {teacher}; give skip, uniform, "
                             "or pairs student:teacher")
        return tuple((layer, teacher - student + layer) for layer in range(1, student))
    if re.fullmatch(r"\d+:\d+(,\d+:\d+)*", spec):
        pairs = tuple(tuple(map(int, pair.split(":"))) for pair in spec.split(","))
        if all(one <= student and other <= teacher for one, other in pairs):
            return pairs
        raise ValueError(f"--layer_map {spec} does not fit a student of {student} and a teacher of {teacher} layers: layers "
                         "count from 0, the embeddings")
    raise ValueError(f"--layer_map {spec}: give {', '.join(LAYER_MAPS)}, or pairs student:teacher as 1:2,2:4")


def relation_pair(student: int, teacher: int, layer: int = 0) -> tuple[int, int]:
    """The student's last layer, and the teacher's `layer`; 0: the one that MiniLMv2 reads, the last of 12, the 21st of 24."""
    return student, layer or (teacher if teacher <= SHALLOW else round(teacher * 21 / 24))
