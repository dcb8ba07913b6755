"""Masked language models: transformers' own logits, files that it reads, packed rows, token types, and what is refused."""

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import AutoModel, AutoModelForMaskedLM, BertConfig, BertForMaskedLM, DebertaV2Config, DebertaV2ForMaskedLM
from transformers import DistilBertConfig, DistilBertForMaskedLM

from models.masked_lm import MaskedLM
from models.pretrained import load_tokenizer, masked_lm
from models.text_encoder import without_token_types
from models.truncate import parse_layers, truncate
from tests.tiny import write_bert

SHAPE = {"vocab_size": 40, "hidden_size": 32, "num_hidden_layers": 4, "num_attention_heads": 2, "intermediate_size": 48}
KINDS = {
    "bert": lambda: BertForMaskedLM(BertConfig(**SHAPE, max_position_embeddings=32)),
    "deberta-v2": lambda: DebertaV2ForMaskedLM(DebertaV2Config(
        **SHAPE, max_position_embeddings=32, relative_attention=True, position_buckets=8, norm_rel_ebd="layer_norm", share_att_key=True,
        pos_att_type=["p2c", "c2p"], position_biased_input=False, type_vocab_size=0)),
    "deberta-v2, not legacy": lambda: DebertaV2ForMaskedLM(DebertaV2Config(**SHAPE, max_position_embeddings=32, type_vocab_size=0, legacy=False)),
    "distilbert": lambda: DistilBertForMaskedLM(DistilBertConfig(vocab_size=40, dim=32, n_layers=4, n_heads=2, hidden_dim=48,
                                                                 max_position_embeddings=32)),
}


@dataclass(frozen=True)
class Rows:
    """What a MaskedLM reads of a batch."""

    input_ids: Tensor
    attention_mask: Tensor
    pieces: Tensor | None = None
    position_ids: Tensor | None = None

    @property
    def token_type_ids(self):
        return torch.zeros_like(self.input_ids)

    @property
    def visible(self):
        return self.pieces[:, :, None] == self.pieces[:, None]


@pytest.fixture(params=KINDS)
def checkpoint(request, tmp_path):
    """A folder with transformers' masked language model of each kind, all its parameters drawn at random, and a tokenizer."""
    write_bert(tmp_path / "model")
    torch.manual_seed(3)
    model = KINDS[request.param]()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.3)
    model.eval().save_pretrained(tmp_path / "model")
    return tmp_path / "model", model


def rows(lengths=(9, 6)):
    torch.manual_seed(1)
    mask = (torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]).long()
    return Rows(torch.randint(6, 40, mask.shape) * mask, mask)


def scores(model: MaskedLM, batch) -> Tensor:
    """Scores of all words at every real position [N, V]."""
    words = model.eval()(batch).words
    return F.linear(words.features(batch.attention_mask.bool()), words.weight, words.bias)


@torch.no_grad()
def test_scores_of_the_vocabulary_are_those_of_transformers(checkpoint):
    folder, theirs = checkpoint
    batch = rows()
    expected = theirs(input_ids=batch.input_ids, attention_mask=batch.attention_mask).logits[batch.attention_mask.bool()]
    torch.testing.assert_close(scores(masked_lm(str(folder)), batch), expected, atol=2e-5, rtol=1e-5)


@torch.no_grad()
def test_a_saved_model_is_read_by_transformers_and_by_restore(checkpoint, tmp_path):
    model, batch = masked_lm(str(checkpoint[0])), rows()
    (tmp_path / "saved").mkdir()
    model.export(tmp_path / "saved")
    theirs, report = AutoModelForMaskedLM.from_pretrained(tmp_path / "saved", output_loading_info=True)
    assert not report["missing_keys"] and not report["unexpected_keys"]
    expected = theirs.eval()(input_ids=batch.input_ids, attention_mask=batch.attention_mask).logits[batch.attention_mask.bool()]
    torch.testing.assert_close(scores(model, batch), expected, atol=2e-5, rtol=1e-5)
    fresh = masked_lm(str(checkpoint[0]), random_init=True)
    assert not torch.equal(scores(fresh, batch), scores(model, batch))
    fresh.restore(tmp_path / "saved")
    assert torch.equal(scores(fresh, batch), scores(model, batch))


@torch.no_grad()
def test_packed_pieces_have_the_hidden_states_that_they_have_alone(checkpoint):
    model, lengths = masked_lm(str(checkpoint[0])).eval(), (9, 6)
    alone = rows(lengths)
    ids = torch.cat([alone.input_ids[0, :9], alone.input_ids[1, :6], torch.zeros(3, dtype=torch.long)])[None]
    pieces = torch.tensor([[1] * 9 + [2] * 6 + [0] * 3])
    positions = torch.cat([torch.arange(9), torch.arange(6), torch.zeros(3, dtype=torch.long)])[None]
    packed = model.encode(Rows(ids, (pieces > 0).long(), pieces, positions))
    for found, expected in zip(packed, model.encode(alone), strict=True):
        assert found.isfinite().all()
        torch.testing.assert_close(found[0, :9], expected[0], atol=2e-5, rtol=1e-5)
        torch.testing.assert_close(found[0, 9:15], expected[1, :6], atol=2e-5, rtol=1e-5)


@torch.no_grad()
def test_one_token_type_scores_as_two_did_and_is_saved_so(tmp_path):
    write_bert(tmp_path / "model")
    BertForMaskedLM(BertConfig(**SHAPE, max_position_embeddings=32)).save_pretrained(tmp_path / "model")
    model, batch = masked_lm(str(tmp_path / "model")), rows()
    before = scores(model, batch)
    assert torch.equal(scores(without_token_types(model), batch), before)
    model.save(tmp_path / "model")
    again = masked_lm(str(tmp_path / "model"))
    assert again.config.type_vocab_size == 1 and torch.equal(scores(again, batch), before)


@torch.no_grad()
def test_without_its_head_it_is_saved_as_the_encoder_that_it_is(checkpoint, tmp_path):
    bare, batch = masked_lm(str(checkpoint[0])).without_head().eval(), rows()
    tmp_path.joinpath("saved").mkdir()
    bare.save(tmp_path / "saved")
    theirs, report = AutoModel.from_pretrained(tmp_path / "saved", output_loading_info=True)
    assert all(name.startswith("pooler.") for name in report["missing_keys"]) and not report["unexpected_keys"]
    assert [type(theirs).__name__] == theirs.config.architectures
    found = bare(batch)
    assert found.words is None and found.logits is None
    inputs = {"token_type_ids": batch.token_type_ids} if bare.type_ids else {}
    torch.testing.assert_close(found.hidden[-1], theirs.eval()(batch.input_ids, batch.attention_mask, **inputs)[0], atol=2e-5, rtol=1e-5)
    again = masked_lm(str(checkpoint[0]), random_init=True).without_head()
    again.restore(tmp_path / "saved")
    assert all(torch.equal(one, other) for one, other in zip(again.parameters(), bare.parameters(), strict=True))
    with pytest.raises(ValueError, match="is not a masked language model"):
        masked_lm(str(tmp_path / "saved"))


def test_layers_are_cut_out_of_a_masked_language_model(checkpoint):
    model = masked_lm(str(checkpoint[0]))
    student = truncate(model, parse_layers("uniform:2", model.depth))
    assert student.depth == 2 and type(student) is MaskedLM
    with torch.no_grad():
        assert student.eval()(rows()).hidden[0].equal(model.eval()(rows()).hidden[0])


def test_an_encoder_without_a_head_is_refused_unless_a_fresh_one_is_asked_for(tmp_path):
    folder = str(write_bert(tmp_path / "bare"))
    with pytest.raises(ValueError, match="is not a masked language model.*PRESET=head TEACHER=.*pretrain.sh"):
        masked_lm(folder)
    assert masked_lm(folder, fresh_head=True).head.bias.shape == (masked_lm(folder, fresh_head=True).config.vocab_size,)


@pytest.mark.parametrize("kind", ["bert", "distilbert"])
def test_words_that_are_scored_by_other_weights_than_their_embeddings_are_refused(kind, tmp_path):
    write_bert(tmp_path / "model")
    tied = KINDS[kind]()
    changed = type(tied)(type(tied.config).from_dict({**tied.config.to_dict(), "tie_word_embeddings": False}))
    changed.save_pretrained(tmp_path / "model")
    for made in (lambda: masked_lm(str(tmp_path / "model")), lambda: masked_lm(str(tmp_path / "model"), random_init=True)):
        with pytest.raises(ValueError, match=r"(decoder|vocab_projector)\.weight of its own: expected words to be scored by their embeddings"):
            made()


def test_only_without_a_convolution_can_rows_be_packed(checkpoint):
    model = masked_lm(str(checkpoint[0]))
    assert model.can_pack
    model.config.conv_kernel_size = 3
    assert not model.can_pack


def test_a_checkpoint_that_lacks_a_layer_is_refused_whatever_is_asked_for(tmp_path):
    folder = write_bert(tmp_path / "bare")
    config = (folder / "config.json").read_text().replace('"num_hidden_layers": 4', '"num_hidden_layers": 5')
    (folder / "config.json").write_text(config)
    with pytest.raises(ValueError, match="randomly"):
        masked_lm(str(folder), fresh_head=True)


def test_the_tokenizer_comes_with_the_model(checkpoint):
    assert masked_lm(str(checkpoint[0])).tokenizer.get_vocab() == load_tokenizer(str(checkpoint[0])).get_vocab()
