import json
import os
import random
import shutil
from pathlib import Path

import pytest
import sentencepiece
import torch
import torch.nn.functional as F
from torch.nn.utils.rnn import pad_sequence
from transformers import AutoTokenizer, DebertaV2Model

from data_utils.tasks import get_task
from models.import_checkpoint import PUBLISHED_LABELS, PUBLISHED_TEXT_ORDER, check_num_labels, load_published_tokenizer, read_published
from models.unpickle import read_kmeanspkl
from tests.published_formats import Hostile, find_downloads, model_state, sentences, write_downloads, write_tokenizer

REAL = Path(__file__).parents[2] / "shared/data/downloaded_formats"
STUDENT_CONFIG = "MRPC.model_config.json"


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    return write_downloads(tmp_path_factory.mktemp("downloads"))


@pytest.fixture(params=["written", pytest.param("real", marks=pytest.mark.realdata)])
def downloads(request, written):
    if request.param == "real" and not REAL.is_dir():
        pytest.skip(f"{REAL} is absent")
    return written if request.param == "written" else find_downloads(REAL)


@pytest.fixture
def copy(written, tmp_path):
    """The written downloads where a test may change them."""
    shutil.copytree(written.teacher.parents[3], tmp_path / "copy")
    return find_downloads(tmp_path / "copy")


def refusal(call, *arguments):
    with pytest.raises(ValueError) as caught:
        call(*arguments)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def edit_state(path, change):
    state = torch.load(path, weights_only=True)
    change(state)
    torch.save(state, path)


@torch.no_grad()
def logits(checkpoint, rows, senses=None):
    """Position 1 pooled, one row after another behind one padded pass through the backbone."""
    backbone = DebertaV2Model(checkpoint.config).eval()
    backbone.load_state_dict(checkpoint.backbone)
    ids = pad_sequence([torch.tensor(row["input_ids"]) for row in rows], batch_first=True)
    states = backbone(ids, attention_mask=(ids > 0).long()).last_hidden_state[:, 1]
    result = []
    for row, state in zip(rows, states, strict=True):
        if checkpoint.adaptor:
            state = F.linear(state, **checkpoint.adaptor)
        candidates = (senses or {}).get(row["input_ids"][1])
        if candidates is not None:
            state = candidates.float()[(candidates.float() @ state).argmax()]
        result.append(F.linear(F.gelu(F.linear(state, **checkpoint.pooler_dense)), **checkpoint.classifier))
    return torch.stack(result)


# ---- the numbers


@pytest.mark.parametrize("column", ["teacher", "teacher_with_senses", "student_with_senses"])
def test_imported_checkpoints_give_the_published_logits(downloads, column):
    checkpoint = read_published(downloads.student if column.startswith("student") else downloads.teacher)
    senses = {"teacher": None, "teacher_with_senses": downloads.teacher_senses, "student_with_senses": downloads.student_senses}[column]
    got = logits(checkpoint, downloads.rows, senses and read_kmeanspkl(senses))
    expected = torch.tensor([row[column] for row in downloads.rows])
    assert (got - expected).abs().max() < 1e-5
    assert (got[0] - got[1]).abs().max() > 1e-2, "the rows are alike: the comparison shows nothing"


def test_the_tokenizer_gives_the_published_ids(downloads):
    tokenizer = load_published_tokenizer(downloads.tokenizer)
    first, second = zip(*(row["texts"] for row in downloads.rows), strict=True)
    assert tokenizer(list(first), list(second), truncation="longest_first", max_length=512)["input_ids"] == [
        row["input_ids"] for row in downloads.rows]
    singles = tokenizer(list(first), truncation="longest_first", max_length=512)["input_ids"]
    assert singles == [row["input_ids"][:row["input_ids"].index(2) + 1] for row in downloads.rows]


# ---- teacher and student


def test_a_teacher_and_a_student_are_told_apart_and_come_whole(written):
    teacher, student = read_published(written.teacher), read_published(written.student)
    assert (teacher.kind, teacher.adaptor, teacher.tokenizer) == ("teacher", None, written.tokenizer)
    assert (student.kind, student.adaptor["weight"].shape, student.tokenizer) == ("student", (128, 64), None)
    assert teacher.num_labels == student.num_labels == 2
    for checkpoint in (teacher, student):
        tensors = {**checkpoint.backbone, **checkpoint.pooler_dense, **checkpoint.classifier}
        assert {tensor.dtype for tensor in tensors.values()} == {torch.float32}
        assert "embeddings.position_embeddings.weight" not in checkpoint.backbone
        assert DebertaV2Model(checkpoint.config).state_dict().keys() == checkpoint.backbone.keys()


def test_reading_leaves_the_random_state_alone(written):
    before = torch.random.get_rng_state()
    read_published(written.teacher)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_the_shapes_tell_the_configuration_that_the_file_beside_the_checkpoint_tells(downloads, tmp_path):
    for path, companion in ((downloads.teacher, "model_config.json"), (downloads.student, STUDENT_CONFIG)):
        if (path.parent / companion).is_file():
            alone = Path(shutil.copyfile(path, tmp_path / path.name))
            assert read_published(alone).config.to_dict() == read_published(path).config.to_dict()


def test_the_configuration_beside_a_checkpoint_tells_what_shapes_cannot(copy):
    settings = {"num_attention_heads": 4, "layer_norm_eps": 1e-5, "attention_probs_dropout_prob": 0.2, "padding_idx": 3,
                "pooling": {"dropout": 0.3, "hidden_act": "gelu"}}
    (copy.student.parent / STUDENT_CONFIG).write_text(json.dumps(settings))
    config = read_published(copy.student).config
    assert (config.num_attention_heads, config.layer_norm_eps, config.attention_probs_dropout_prob) == (4, 1e-5, 0.2)
    assert (config.pad_token_id, config.pooler_dropout) == (3, 0.3)
    assert (config.num_hidden_layers, config.hidden_size, config.intermediate_size) == (1, 64, 96)


@pytest.mark.parametrize("settings, words", [
    ({"hidden_size": 1024}, "hidden_size 1024 (the tensors say 64)"),
    ({"num_hidden_layers": 12}, "num_hidden_layers 12 (the tensors say 1)"),
    ({"vocab_size": 128100}, "vocab_size 128100"),
    ({"norm_rel_ebd": "none"}, "norm_rel_ebd 'none' (the tensors say 'layer_norm')"),
    ({"relative_attention": False}, "relative_attention False"),
    ({"position_buckets": 128}, "rel_embeddings.weight is (512, 64), expected (256, 64)"),
    ({"share_att_key": False}, "missing deberta.encoder.layer.0.attention.self.pos_key_proj.weight"),
    ({"type_vocab_size": 2}, "missing deberta.embeddings.token_type_embeddings.weight"),
    ({"conv_kernel_size": 3}, "missing deberta.encoder.conv.conv.weight"),
    ({"num_attention_heads": 5}, "no DeBERTa has these settings"),
    ({"layer_norm_eps": "small"}, "no DeBERTa has these settings"),
    ({"model_type": "bert"}, "model_type 'bert', expected 'deberta-v2'"),
    ({"pooling": {"dropout": 0, "hidden_act": "tanh"}}, "hidden_act is 'tanh'; expected 'gelu'"),
    ({"pooling": 3}, "not a configuration"),
    ({"talking_heads": True}, "unknown settings talking_heads"),
    ([1], "not a configuration"),
])
def test_a_configuration_that_contradicts_the_checkpoint_is_refused(copy, settings, words):
    (copy.student.parent / STUDENT_CONFIG).write_text(json.dumps(settings))
    assert words in refusal(read_published, copy.student)


def test_a_configuration_that_is_cut_short_is_refused(copy):
    (copy.student.parent / STUDENT_CONFIG).write_text('{"hidden_size": 6')
    assert STUDENT_CONFIG in refusal(read_published, copy.student)


def test_backbones_named_bert_are_read(copy, written):
    def rename(state):
        for key in [key for key in state if key.startswith("deberta.")]:
            state["bert." + key.removeprefix("deberta.")] = state.pop(key)

    edit_state(copy.teacher, rename)
    backbone = read_published(copy.teacher).backbone
    for key, tensor in read_published(written.teacher).backbone.items():
        assert torch.equal(backbone[key], tensor)


def test_missing_unknown_and_misshapen_tensors_are_all_listed(copy):
    def damage(state):
        del state["deberta.encoder.layer.1.output.dense.bias"]
        state["lm_head.bias"] = torch.ones(1)
        state["classifier.bias"] = torch.ones(3)

    edit_state(copy.teacher, damage)
    message = refusal(read_published, copy.teacher)
    assert message.startswith(str(copy.teacher))
    for words in ("missing deberta.encoder.layer.1.output.dense.bias", "unknown lm_head.bias", "classifier.bias is (3,), expected (2,)"):
        assert words in message


@pytest.mark.parametrize("key", ["pooler.dense.weight", "deberta.embeddings.word_embeddings.weight", "classifier.weight"])
def test_a_checkpoint_without_its_head_or_embeddings_says_so(copy, key):
    edit_state(copy.teacher, lambda state: state.pop(key))
    assert f"no matrix {key}" in refusal(read_published, copy.teacher)


def test_a_student_without_half_its_adaptor_is_refused(copy):
    edit_state(copy.student, lambda state: state.pop("module.adaptor.weight"))
    assert "missing adaptor.weight" in refusal(read_published, copy.student)


def test_a_width_that_does_not_tell_the_heads_asks_for_the_configuration(tmp_path):
    torch.save(model_state(20, hidden=96, layers=1, seed=0), tmp_path / "a.bin")
    assert "put its model_config.json beside it" in refusal(read_published, tmp_path / "a.bin")
    (tmp_path / "model_config.json").write_text('{"num_attention_heads": 3}')
    assert read_published(tmp_path / "a.bin").config.num_attention_heads == 3


def test_a_checkpoint_of_another_number_of_labels_is_refused(written):
    checkpoint = read_published(written.teacher)
    check_num_labels(checkpoint, 2, "MRPC")
    message = refusal(check_num_labels, checkpoint, 3, "MNLI")
    assert message.startswith(str(written.teacher)) and "2 outputs, MNLI needs 3" in message


@pytest.mark.parametrize("name", ["teacher", "student"])
def test_a_call_hidden_in_a_downloaded_checkpoint_is_named_and_not_run(copy, tmp_path, name):
    path = getattr(copy, name)
    torch.save({**torch.load(path, weights_only=True), "extra": Hostile(tmp_path / "ran")}, path)
    assert "posix.system" in refusal(read_published, path)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("name", ["teacher", "student"])
def test_a_downloaded_checkpoint_that_is_cut_short_gives_one_clear_line(copy, name):
    path = getattr(copy, name)
    os.truncate(path, path.stat().st_size // 2)
    message = refusal(read_published, path)
    assert message.startswith(str(path)) and "download it again" in message


# ---- labels and texts


def test_published_labels_and_texts_are_those_of_our_tasks_in_the_published_order():
    assert PUBLISHED_LABELS.keys() == PUBLISHED_TEXT_ORDER.keys()
    other_labels, other_texts = set(), set()
    for name in PUBLISHED_LABELS:
        task = get_task(name)
        assert task.name == name
        assert sorted(PUBLISHED_LABELS[name]) == sorted(task.labels) and sorted(PUBLISHED_TEXT_ORDER[name]) == sorted(task.texts)
        other_labels |= {name} if PUBLISHED_LABELS[name] != task.labels else set()
        other_texts |= {name} if PUBLISHED_TEXT_ORDER[name] != task.texts else set()
    assert (other_labels, other_texts) == ({"MNLI", "QNLI", "RTE"}, {"QNLI"})


# ---- tokenizer

ODD = ["", " ", "  two  spaces ", "tab\tand\nline", "a\u00a0b", "\ufb01ne", "\uff26\uff55\uff4c\uff4c", "\u2026 \u00bd \u00b2", "e\u0301 \u00e9",
       "zero\u200bwidth", "\ufeffmark", "\u2603\u2603 \u2603", "\U0001f600", "\u2581a \u2581 b\u2581", "\u3000wide\u3000", "\u201cquoted\u201d \u2014 dash"]


@pytest.mark.parametrize("options", [{}, {"byte_fallback": True, "vocab_size": 400}, {"normalization_rule_name": "identity"}], ids=str)
def test_odd_texts_get_the_ids_of_sentencepiece(tmp_path, options):
    write_tokenizer(tmp_path / "spm.model", **options)
    pieces = sentencepiece.SentencePieceProcessor(model_file=str(tmp_path / "spm.model"))
    tokenizer = load_published_tokenizer(tmp_path / "spm.model")
    draw = random.Random(0)
    letters = [chr(code) for code in (*range(33, 0x180), *range(0x2010, 0x2030), *range(0xff01, 0xff40))] + list(" aeiobdklmnrst") * 40
    odd = [text for text in ODD if "identity" not in options.values() or "\u2581" not in text]  # U+2581 is left to the normaliser
    for text in [*odd, *sentences(50, seed=9), *("".join(draw.choices(letters, k=20)) for _ in range(300))]:
        assert tokenizer(text)["input_ids"] == [1, *pieces.encode(text), 2], ascii(text)


def test_special_ids_are_those_of_deberta_and_mask_follows_the_pieces(written):
    tokenizer = load_published_tokenizer(written.tokenizer)
    size = sentencepiece.SentencePieceProcessor(model_file=str(written.tokenizer)).get_piece_size()
    assert (tokenizer.pad_token_id, tokenizer.cls_token_id, tokenizer.sep_token_id, tokenizer.unk_token_id) == (0, 1, 2, 3)
    assert (tokenizer.mask_token_id, len(tokenizer)) == (size, size + 1)


def test_the_longer_segment_of_a_pair_is_cut_from_its_end(written):
    tokenizer = load_published_tokenizer(written.tokenizer)
    long, short = " ".join(sentences(5, seed=1)), "ba be"
    whole, kept = tokenizer([long], [short]), tokenizer([long], [short], truncation="longest_first", max_length=20)
    ids, tail = whole["input_ids"][0], sum(whole["token_type_ids"][0])
    assert kept["input_ids"][0] == ids[:19 - tail] + [2] + ids[-tail:]
    assert kept["token_type_ids"][0] == [0] * (20 - tail) + [1] * tail


def test_a_saved_tokenizer_is_the_same_beside_a_saved_model(written, tmp_path):
    tokenizer = load_published_tokenizer(written.tokenizer)
    read_published(written.teacher).config.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    again = AutoTokenizer.from_pretrained(tmp_path)
    for text in [*ODD, *sentences(20, seed=2)]:
        assert again(text, "ba [MASK]").data == tokenizer(text, "ba [MASK]").data
    assert again.mask_token_id == tokenizer.mask_token_id and again.model_input_names == tokenizer.model_input_names
    assert tokenizer.decode(tokenizer("ba be bo")["input_ids"], skip_special_tokens=True) == "ba be bo"


@pytest.mark.parametrize("options", [{"model_type": "bpe"}, {"add_dummy_prefix": False}, {"remove_extra_whitespaces": False},
                                     {"pad_id": 3, "unk_id": 0}, {"bos_piece": "<s>"}], ids=str)
def test_a_sentencepiece_model_of_another_kind_is_refused(tmp_path, options):
    write_tokenizer(tmp_path / "spm.model", **options)
    assert "another kind" in refusal(load_published_tokenizer, tmp_path / "spm.model")


def test_a_damaged_tokenizer_gives_one_clear_line(written, tmp_path):
    whole = written.tokenizer.read_bytes()
    for length in (0, 1, 40, 1000, 2500, len(whole) // 2, len(whole) - 1):
        (tmp_path / "spm.model").write_bytes(whole[:length])
        assert "download it again" in refusal(load_published_tokenizer, tmp_path / "spm.model"), length
    (tmp_path / "spm.model").write_text("version https://git-lfs.github.com/spec/v1\n")
    assert "download it again" in refusal(load_published_tokenizer, tmp_path / "spm.model")
    assert "no such file" in refusal(load_published_tokenizer, tmp_path / "absent.model")
