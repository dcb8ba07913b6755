"""Building sense dictionaries: what is kept, what is said."""

import contextlib
import json
import logging
import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from data_utils.batching import collate
from data_utils.readers import read_examples
from data_utils.tasks import get_task
from distill.__main__ import main
from distill.rundir import RunDir
from distill.senses import build as building
from distill.senses import states
from distill.senses.build import SenseConfig, _check_finite, build
from distill.senses.corpus import corpus_texts, open_corpus, tokenise_corpus
from distill.senses.dictionary import FILE, SenseDictionary
from distill.senses.sample import Sample
from models.checkpoint import load_encoder
from tests.test_senses.builds import K, built, words
from tests.training import free_port, start


@torch.no_grad()
def teacher_states(made: Path, layer: int = -1) -> dict[int, np.ndarray]:
    """{type: its hidden states in corpus order} over the train set, one sentence at a time."""
    teacher = load_encoder(made / "teacher/best").eval()
    states: dict[int, list] = {}
    for example in read_examples(get_task("CoLA"), "train", made / "glue"):
        row = teacher.tokenizer(*example.texts, return_tensors="pt", return_token_type_ids=True)
        hidden = teacher.backbone(**row, output_hidden_states=True).hidden_states[layer][0]
        for token, state in zip(row["input_ids"][0].tolist(), hidden, strict=True):
            states.setdefault(token, []).append(state.numpy())
    return {token: np.stack(rows) for token, rows in states.items()}


def of_type(dictionary: SenseDictionary, token: int) -> np.ndarray:
    return dictionary.centroids[dictionary.offsets[token]:dictionary.offsets[token + 1]].float().numpy()


def as_set(vectors: np.ndarray) -> list:
    return sorted(map(tuple, np.round(vectors, 2).tolist()))


# ---- what a dictionary holds


def test_counts_and_offsets_are_those_of_the_corpus_and_rare_types_keep_their_vectors(made, undisturbed):
    dictionary, states = SenseDictionary.load(made / "undisturbed"), teacher_states(made)
    counts = dictionary.counts.numpy()
    assert {token: int(count) for token, count in enumerate(counts) if count} == {token: len(rows) for token, rows in states.items()}
    assert dictionary.sizes.tolist() == np.minimum(counts, K).tolist()
    assert len(dictionary.centroids) == dictionary.offsets[-1] and dictionary.centroids.dtype == torch.float16
    rare = [token for token in states if counts[token] <= K]
    assert rare, "no rare type: the comparison shows nothing"
    for token in rare:
        found, expected = of_type(dictionary, token), states[token]
        distance = np.abs(found[:, None] - expected[None]).max(2)
        assert distance.min(1).max() < 2e-3 and distance.min(0).max() < 2e-3  # as sets, within float16
    common = max(states, key=lambda token: len(states[token]))
    assert np.allclose(of_type(dictionary, common).mean(0), states[common].mean(0), atol=0.5)


def test_one_sense_per_type_is_the_mean_of_its_states(made, tmp_path):
    dictionary, states = built(made, tmp_path / "one", "--num_senses", 1, "--cap", 1000), teacher_states(made)
    for token, rows in states.items():
        assert np.abs(of_type(dictionary, token)[0] - rows.mean(0)).max() < 4e-3


@pytest.mark.parametrize("layer", [0, 2])
def test_another_layer_gives_that_layers_states(layer, made, tmp_path):
    dictionary, states = built(made, tmp_path / "layer", "--num_senses", 1, "--layer", layer), teacher_states(made, layer)
    token = max(states, key=lambda token: len(states[token]))
    assert np.abs(of_type(dictionary, token)[0] - states[token].mean(0)).max() < 4e-3


def test_no_more_than_cap_vectors_of_a_type_are_clustered(made, tmp_path):
    dictionary, states = built(made, tmp_path / "capped", "--cap", K), teacher_states(made)
    for token, rows in states.items():  # a type with K sampled vectors keeps them: every one is a state of the teacher
        found = of_type(dictionary, token)
        assert len(found) == min(len(rows), K)
        assert np.abs(found[:, None] - rows[None]).max(2).min(1).max() < 2e-3
    assert int(dictionary.counts.max()) > K, "counts are those of the corpus, not of the sample"


def test_the_digest_follows_the_settings_that_matter(made, undisturbed, tmp_path):
    same = built(made, tmp_path / "same", "--max_tokens", 4096)
    other = built(made, tmp_path / "other", "--seed", 7)
    assert torch.equal(same.offsets, SenseDictionary.load(made / "undisturbed").offsets)
    assert other.digest() != SenseDictionary.load(made / "undisturbed").digest()


def test_provenance_size_and_coverage_are_stored_and_printed(made, undisturbed, capsys):
    built(made, made / "undisturbed")  # complete: says what it is, makes nothing
    out = capsys.readouterr().out
    dictionary = SenseDictionary.load(made / "undisturbed")
    facts = dict(dictionary.provenance)
    assert facts["num_senses"] == str(K) and facts["corpus"] == "task" and facts["corpus_sequences"] == "50"
    assert int(facts["corpus_tokens"]) == int(dictionary.counts.sum()) and len(facts["teacher"]) == 16
    assert f"{dictionary.types} types with {len(dictionary.centroids)} senses" in out and "covers 100.00 % of the tokens of dev" in out
    assert (made / "undisturbed" / FILE).read_bytes() == undisturbed
    assert not (made / "undisturbed/work").exists()


# ---- corpora


def test_corpora_are_the_train_set_all_train_sets_a_text_file_or_a_json_file(made, tmp_path):
    text, pairs = tmp_path / "corpus.txt", tmp_path / "corpus.json"
    text.write_text("the river bank\n\nmoney of the bank\n")
    pairs.write_text(json.dumps(["good film", ["bad day"], ["the man", "the woman"]]))
    sequences, tokens = {}, {}
    for corpus in ("task", "glue", text, pairs):
        facts = built(made, tmp_path / "out" / Path(corpus).name, "--corpus", corpus).provenance
        sequences[str(corpus)], tokens[str(corpus)] = int(facts["corpus_sequences"]), int(facts["corpus_tokens"])
    assert sequences == {"task": 50, "glue": 3 * 48 + 50, str(text): 2, str(pairs): 3}
    assert tokens[str(text)] == 3 + 4 + 2 * 2 and tokens[str(pairs)] == (2 + 2) + (2 + 2) + (4 + 3)
    dictionary = SenseDictionary.load(tmp_path / "out/corpus.txt")
    tokenizer = load_encoder(made / "teacher/best").tokenizer
    assert dictionary.counts[tokenizer.convert_tokens_to_ids("bank")] == 2
    assert dictionary.counts[tokenizer.convert_tokens_to_ids("film")] == 0


def test_all_train_sets_are_those_that_a_reader_finds(made, tmp_path):
    """MRPC as Microsoft gives it; nothing outside the folder."""
    shutil.copytree(made / "glue/CoLA", tmp_path / "glue/CoLA")
    (tmp_path / "glue/MRPC").mkdir()
    (tmp_path / "glue/MRPC/msr_paraphrase_train.txt").write_text("Quality\t#1 ID\t#2 ID\t#1 String\t#2 String\n1\t1\t2\ta\tb\n0\t3\t4\tc\td\n")
    (tmp_path / "glue/MRPC/dev_ids.tsv").write_text("3\t4\n")
    found = list(corpus_texts("glue", get_task("CoLA"), str(tmp_path / "glue"), ()))
    assert len(found) == 2 and [("a", "b")] in found
    (swapped,) = corpus_texts("task", get_task("MRPC"), str(tmp_path / "glue"), (1, 0))
    assert swapped == [("b", "a")], "as a teacher reads them that was made so"


def test_which_train_sets_all_are_is_said_and_stored(made, tmp_path, caplog, capsys):
    with caplog.at_level(logging.WARNING):
        facts = built(made, tmp_path / "out", "--corpus", "glue").provenance
    assert facts["corpus_tasks"] == "CoLA, SST-2, MRPC, STS-B" and ": MNLI, QNLI, QQP, RTE; senses are built from CoLA" in caplog.text
    (tmp_path / "empty").mkdir()
    assert main(words(made, tmp_path / "none", "--corpus", "glue", "--data_dir", tmp_path / "empty")) == 1
    assert "holds no train set of CoLA, MNLI" in capsys.readouterr().err


def test_states_that_are_no_numbers_are_refused_with_their_types(made):
    tokenizer = load_encoder(made / "teacher/best").tokenizer
    centroids = np.ones((4, 2), np.float16)
    centroids[3, 1] = np.inf
    with pytest.raises(ValueError, match=r"of 1 types \(\[CLS\]\) are not finite"):
        _check_finite(centroids, np.array([0, 1, 3, 4]), tokenizer)
    _check_finite(centroids[:3], np.array([0, 1, 3]), tokenizer)


@pytest.mark.parametrize("name, content, said", [
    ("none.txt", None, "no corpus"), ("empty.txt", b"\n \n", "has no text"), ("latin.txt", b"fine\ncaf\xe9\n", "latin.txt:2: expected UTF-8"),
    ("cut.json", b'[["a"], ["b"', "is not a JSON list"), ("empty.json", b"[]", "has no text"), ("three.json", b'[["a"], ["a", "b", "c"]]', "three.json: row 1: expected [text] or [text, text]"),
    ("dict.json", b'{"a": 1}', "is not a JSON list"), ("numbers.json", b'[[1]]', "row 0"),
    ("lines.jsonl", b'{"text": "fine"}', "not JSON lines")])
def test_a_corpus_that_cannot_be_read_gives_one_line_and_leaves_nothing_half_written(name, content, said, made, tmp_path, capsys):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    capsys.readouterr()
    assert main(words(made, tmp_path / "out", "--corpus", tmp_path / name)) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error:") and name in line and said in line
    assert not list(tmp_path.rglob("*.tmp")) and not list(tmp_path.rglob("DONE")) and not list(tmp_path.rglob(FILE))
    built(made, tmp_path / "out")  # another corpus in the same folder: nothing had been made


# ---- the work


def test_the_vectors_file_has_its_final_size_before_the_teacher_runs(made, tmp_path, monkeypatch):
    class Looked(BaseException):
        pass

    def look(cfg, teacher, corpus, sample: Sample, states, work):
        assert (work / "vectors.bin").stat().st_size == len(sample.row) * teacher.width * 2 == states.vectors.nbytes
        assert isinstance(states.vectors, np.memmap) and isinstance(corpus.ids, np.memmap)
        assert len(sample.row) == np.minimum(np.load(work / "corpus/counts.npy"), 6).sum()
        raise Looked

    monkeypatch.setattr(building, "collect", look)
    with pytest.raises(Looked):
        main(words(made, tmp_path / "out", "--cap", 6))


def test_states_that_fit_the_device_never_touch_the_disk_and_give_the_same_bytes(made, undisturbed, tmp_path, monkeypatch):
    monkeypatch.setattr(states, "free_memory", lambda: 1 << 30)
    monkeypatch.setattr(states, "MappedStates", None)
    assert main(words(made, tmp_path / "out")) == 0
    assert (tmp_path / "out" / FILE).read_bytes() == undisturbed


def test_the_corpus_on_disk_is_the_corpus(made, tmp_path):
    teacher = load_encoder(made / "teacher/best")
    tokenise_corpus("task", get_task("CoLA"), str(made / "glue"), teacher.tokenizer, 128, teacher.config.vocab_size, tmp_path)
    corpus, counts = open_corpus(tmp_path)
    texts = [example.texts[0] for example in read_examples(get_task("CoLA"), "train", made / "glue")]
    expected = teacher.tokenizer(texts)["input_ids"]
    assert [corpus.ids[start:end].tolist() for start, end in zip(corpus.offsets, corpus.offsets[1:])] == expected
    assert np.array_equal(counts, np.bincount(np.concatenate(expected), minlength=len(counts)))
    batch = collate(corpus, np.array([3, 1]), "CoLA", 0)
    assert batch.input_ids[0, :len(expected[3])].tolist() == expected[3]


def one_rank(rank: int, port: int, arguments: list[str], printed: Path) -> None:
    """What torchrun would start."""
    os.environ.update(RANK=str(rank), WORLD_SIZE="2", LOCAL_RANK=str(rank), MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    with printed.open("w") as file, contextlib.redirect_stdout(file):
        assert main(arguments) == 0


@pytest.mark.skipif(torch.cuda.is_available(), reason="gloo ranks are processes on a CPU")
def test_two_gloo_ranks_build_the_dictionary_of_one(made, undisturbed, tmp_path):
    port = free_port()
    ranks = [start(one_rank, rank, port, words(made, tmp_path / "out"), tmp_path / f"printed{rank}") for rank in range(2)]
    for process in ranks:
        process.join(120)
    assert [process.exitcode for process in ranks] == [0, 0]
    assert "types with" in (tmp_path / "printed0").read_text() and (tmp_path / "printed1").read_text() == ""
    one, two = SenseDictionary.load(made / "undisturbed"), SenseDictionary.load(tmp_path / "out")
    assert all(torch.equal(getattr(one, name), getattr(two, name)) for name in ("offsets", "counts", "centroids"))


def test_settings_that_make_no_sense_are_refused():
    for name, value in (("num_senses", 0), ("cap", 0), ("max_tokens", -1), ("cap", 19)):
        with pytest.raises(ValueError, match=f"--{name} {value}"):
            SenseConfig(**{name: value})


def test_build_is_callable_without_the_command_line(made, undisturbed, tmp_path):
    cfg = SenseConfig(output_dir=str(tmp_path), data_dir=str(made / "glue"), num_senses=K, bf16=False)
    dictionary = build(cfg, get_task("CoLA"), load_encoder(made / "teacher/best"), RunDir(tmp_path), {})
    assert torch.equal(dictionary.offsets, SenseDictionary.load(made / "undisturbed").offsets)
    adapted = load_encoder(made / "teacher/best")
    adapted.adaptor, adapted.head = torch.nn.Linear(adapted.width, adapted.width + 8), adapted.info.new_head(adapted.width + 8, "gelu", 0.0)
    for layer, width in ((-1, adapted.width), (-2, adapted.width - 8), (1, adapted.width - 8)):
        place = tmp_path / f"layer{layer}"
        found = build(replace(cfg, layer=layer, output_dir=str(place)), get_task("CoLA"), adapted, RunDir(place), {})
        assert found.centroids.shape[1] == width, "an adaptor widens the last states alone"
