"""Layer maps: the published ones, and what is no map."""

import pytest

from distill.layer_maps import LAYER_MAPS, layer_pairs, relation_pair


def test_uniform_is_tinyberts_map_embeddings_to_embeddings():
    assert layer_pairs("uniform", 4, 12) == ((0, 0), (1, 3), (2, 6), (3, 9), (4, 12))
    assert layer_pairs("uniform", 6, 12) == tuple((layer, 2 * layer) for layer in range(7))


def test_skip_and_last_are_those_of_patient_distillation():
    """Six layers of twelve: every second one, or the last; never the student's own last, whose logits are compared."""
    assert layer_pairs("skip", 6, 12) == ((1, 2), (2, 4), (3, 6), (4, 8), (5, 10))
    assert layer_pairs("last", 6, 12) == ((1, 7), (2, 8), (3, 9), (4, 10), (5, 11))


@pytest.mark.parametrize("spec", LAYER_MAPS)
@pytest.mark.parametrize("student, teacher", [(2, 5), (3, 4), (4, 4), (5, 24)])
def test_a_map_rises_within_both_models(spec, student, teacher):
    pairs = layer_pairs(spec, student, teacher)
    assert pairs and all(0 <= one <= student and 0 <= other <= teacher for one, other in pairs)
    assert list(pairs) == sorted(pairs) and [other for _, other in pairs] == sorted(other for _, other in pairs)


def test_pairs_are_taken_as_given():
    assert layer_pairs("1:4,0:0,2:2", 2, 4) == ((1, 4), (0, 0), (2, 2))


@pytest.mark.parametrize("spec, student, teacher, said", [
    ("skip", 1, 4, "a student of one layer"), ("last", 1, 4, "a student of one layer"), ("last", 4, 3, "4 layers, the teacher only 3"),
    ("1:5", 2, 4, "does not fit a student of 2 and a teacher of 4 layers"), ("3:1", 2, 4, "does not fit"), ("every", 2, 4, "uniform, skip, last"),
    ("", 2, 4, "student:teacher"), ("1-2", 2, 4, "student:teacher"), ("1:2,", 2, 4, "student:teacher")])
def test_what_is_no_map_of_these_layers_is_refused(spec, student, teacher, said):
    with pytest.raises(ValueError, match=f"--layer_map {spec}.*{said}"):
        layer_pairs(spec, student, teacher)


def test_relations_are_read_from_the_last_layer_or_below_the_top_of_deep_teachers():
    assert relation_pair(3, 6) == (3, 6) and relation_pair(6, 12) == (6, 12)
    assert relation_pair(6, 24) == (6, 21), "MiniLMv2's choice"
    assert relation_pair(6, 24, layer=23) == (6, 23)
