"""Queries, keys and values are noted as the layers compute them, and nowhere else."""

import weakref

import pytest
import torch
from transformers import AutoModel

from distill.teacher import LiveTeacher, Wanted
from tests import formulas
from tests.pairs import Pair
from tests.training import settings


@pytest.fixture(params=["bert", "deberta"])
def pair(request) -> Pair:
    return Pair(request.getfixturevalue(f"tiny_{request.param}"))


@pytest.mark.parametrize("train", [True, False])
def test_projections_are_what_the_linear_maps_give_for_tokens_and_not_for_positions(pair, train):
    """DeBERTa projects the embeddings of distances through the same maps, after the tokens."""
    pair.teacher.train(train).keep_projections([1, 3])
    pair.teacher.keep_projections([3])  # asked for twice
    with torch.no_grad():
        for _ in range(2):
            found = pair.teacher(pair.batch)
            assert set(found.projections) == {1, 3}
            for layer in (1, 3):
                for one, other in zip(found.projections[layer], formulas.projected(pair.teacher, found, layer), strict=True):
                    assert one.shape == (*pair.batch.input_ids.shape, pair.teacher.config.hidden_size)
                    torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)


def test_attention_scores_are_berts_own_before_the_softmax(tiny_bert):
    pair = Pair(tiny_bert)
    own = AutoModel.from_config(pair.teacher.config, attn_implementation="eager", add_pooling_layer=False).eval()
    own.load_state_dict(pair.teacher.backbone.state_dict())
    with torch.no_grad():
        probabilities = own(pair.batch.input_ids, pair.batch.attention_mask, pair.batch.token_type_ids, output_attentions=True).attentions
        found = LiveTeacher(pair.teacher, settings(), Wanted(projections=(2,)))(pair.batch)
    for row, length in formulas.real(pair.batch):
        scores = formulas.scores(*(part[row, :length] for part in found.projections[2][:2]), 2)
        for head in range(2):
            expected = probabilities[1][row, head, :length, :length].double()
            torch.testing.assert_close(scores[head].softmax(-1), expected, rtol=1e-4, atol=1e-6)


def test_an_encoder_holds_no_projections_after_a_pass(tiny_bert):
    pair = Pair(tiny_bert)
    pair.student.keep_projections([2])
    found = pair.student(pair.batch)
    noted = weakref.ref(found.projections[2][0])
    assert noted() is not None
    del found
    assert noted() is None


def test_a_student_with_noted_projections_is_saved_as_any_other(tiny_bert, tmp_path):
    plain, noting = Pair(tiny_bert), Pair(tiny_bert)
    noting.student.keep_projections([1, 2])
    for name, student in (("plain", plain.student), ("noting", noting.student)):
        (tmp_path / name).mkdir()
        student.save(tmp_path / name)
    assert (tmp_path / "plain/model.safetensors").read_bytes() == (tmp_path / "noting/model.safetensors").read_bytes()


def test_an_encoder_without_such_maps_says_so(tiny_bert):
    pair = Pair(tiny_bert)
    for layer in pair.teacher.backbone.encoder.layer:
        layer.attention.self.other = layer.attention.self.__dict__["_modules"].pop("query")
    with pytest.raises(ValueError, match="found no query, key, value in a layer of a bert encoder.*pkd and logit_kd need none"):
        pair.teacher.keep_projections([1])
