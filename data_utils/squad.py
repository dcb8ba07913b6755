"""What is particular to questions over a text: records in SQuAD's format, and their gold answers.

A record is a paragraph of the official files, which holds several questions, or a row of the Hub, which is one:

    {"context": ..., "qas": [{"id", "question", "answers": [{"text", "answer_start"}, ...]}, ...]}
    {"context": ..., "id", "question", "answers": {"text": [...], "answer_start": [...]}}

Functions raise ValueError where a record does not fit; the reader says where it stands.
"""

import json
from collections.abc import Iterator, Mapping

Fields = dict[str, str]


def rows(record: Mapping) -> Iterator[Fields]:
    """A row for each question; its answers as JSON, a list of [text, number of its first letter in the context]."""
    if "qas" not in record:
        answers = record["answers"]
        yield _row(record["context"], record, zip(answers["text"], answers["answer_start"], strict=True))
        return
    for question in record["qas"]:
        yield _row(record["context"], question, ((answer["text"], answer["answer_start"]) for answer in question["answers"]))


def _row(context: str, question: Mapping, answers) -> Fields:
    for name, text in (("context", context), ("question", question["question"])):
        if type(text) is not str:
            raise ValueError(f"question {question['id']}: expected a text as its {name}, found {text!r}")
    return {"id": str(question["id"]), "question": question["question"], "context": context, "answers": json.dumps(list(answers))}


def gold_answers(fields: Fields) -> tuple[tuple[str, int], ...]:
    """The answers of a row, (text, number of its first letter), without blanks around them and without empty ones.

    ValueError where an answer does not stand in the context where it is said to stand: a label there would teach another text.
    """
    context, found = fields["context"], []
    for text, start in json.loads(fields["answers"]):
        if type(text) is not str or type(start) is not int:
            raise ValueError(f"question {fields['id']}: expected a text and a whole number as an answer, found {text!r} and {start!r}")
        if context[start:start + len(text)] != text or start < 0:
            raise ValueError(f"question {fields['id']}: expected the answer {text[:80]!r} at letter {start} of the context, found "
                             f"{context[max(start, 0):max(start, 0) + len(text)][:80]!r}; correct answer_start, or fetch the file again")
        if text.strip():
            found.append((text.strip(), start + len(text) - len(text.lstrip())))
    return tuple(found)
