"""IMDb: a folder of reviews is read in a fixed order or refused; the test set is reported and selects nothing."""

import hashlib
import json
import shutil
import tarfile
from pathlib import Path

import pytest

from data_utils.readers import data_fingerprint, find_folder, read_examples
from data_utils.tasks import Example, get_task
from distill.__main__ import main
from distill.config import TaskConfig
from distill.recipes import finetune, logit_kd, mpdistil
from distill.splits import read_splits
from distill.verbs.train import preset_settings
from models.checkpoint import load_encoder

IMDB = get_task("imdb")
REVIEWS = {"neg/10_1.txt": "ten", "neg/9_4.txt": "nine <i>and</i><br /><br />a half\n", "neg/0_3.txt": "zero", "pos/2_10.txt": "two", "pos/1_7.txt": "caf\u00e9"}


@pytest.fixture
def folder(tmp_path) -> Path:
    """A data directory with REVIEWS as both splits, and what else the archive holds."""
    for split in ("train", "test"):
        for name, text in {**REVIEWS, "unsup/0_0.txt": "no label", "labeledBow.feat": "1 0:7"}.items():
            path = tmp_path / "aclImdb" / split / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(text.encode())
    return tmp_path


# ---- reading


@pytest.mark.parametrize("split", ["train", "test"])
def test_reviews_come_by_class_and_by_number_with_a_space_for_a_line_break(split, folder):
    assert read_examples(IMDB, split, folder) == [
        Example(0, ("zero",), 0), Example(1, ("nine <i>and</i>  a half\n",), 0), Example(2, ("ten",), 0),
        Example(3, ("caf\u00e9",), 1), Example(4, ("two",), 1)]


def test_the_folder_is_found_under_both_names(folder):
    assert find_folder(IMDB, folder).name == "aclImdb"
    (folder / "aclImdb").rename(folder / "IMDb")
    assert find_folder(IMDB, folder).name == "IMDb" and len(read_examples(IMDB, "test", folder)) == 5


def test_the_fingerprint_is_of_names_and_contents_in_the_order_of_the_rows(folder):
    order = ["neg/0_3.txt", "neg/9_4.txt", "neg/10_1.txt", "pos/1_7.txt", "pos/2_10.txt"]
    printed = "".join(f"{hashlib.sha256(REVIEWS[name].encode()).hexdigest()}  {name}\n" for name in order)
    before = data_fingerprint(IMDB, "train", folder)
    assert before == hashlib.sha256(printed.encode()).hexdigest() == data_fingerprint(IMDB, "test", folder)
    review = folder / "aclImdb/train/pos/1_7.txt"
    review.write_text("cafe")
    edited = data_fingerprint(IMDB, "train", folder)
    review.rename(review.with_name("1_8.txt"))
    assert len({before, edited, data_fingerprint(IMDB, "train", folder)}) == 3
    assert data_fingerprint(IMDB, "test", folder) == before


@pytest.mark.parametrize("spoil, message", [
    (lambda train: shutil.rmtree(train), r"IMDb train: expected .*aclImdb/train, which is not there; fetch it: .*--tasks IMDb"),
    (lambda train: shutil.rmtree(train / "pos"), r"aclImdb/train/pos: expected a folder with the reviews of the class 'pos', found none; .*--tasks IMDb"),
    (lambda train: [path.unlink() for path in (train / "neg").iterdir()], r"train/neg: expected a folder .* found an empty one"),
    (lambda train: (train / "neg" / "0_3.txt").rename(train / "neg" / "first.txt"), r"neg/first\.txt: expected only reviews, named NUMBER_RATING\.txt"),
    (lambda train: (train / "pos" / ".DS_Store").touch(), r"pos/\.DS_Store: expected only reviews"),
    (lambda train: (train / "pos" / "1_7.txt").write_bytes("one\ncaf\u00e9".encode("latin-1")),
     r"pos/1_7\.txt:2: expected UTF-8, found byte 0xe9 at position 4 of the line"),
    (lambda train: (train / "pos" / "1_7.txt").write_text(" <br /> "), r"pos/1_7\.txt: expected a text in column 'text', found an empty one")])
def test_what_is_no_review_is_refused_with_its_place(spoil, message, folder):
    spoil(folder / "aclImdb" / "train")
    with pytest.raises(ValueError, match=message):
        read_examples(IMDB, "train", folder)
    assert len(read_examples(IMDB, "test", folder)) == 5


def test_the_hub_gives_the_same_examples(monkeypatch, tmp_path):
    datasets = pytest.importorskip("datasets")
    features = datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["neg", "pos"])})
    served = datasets.Dataset.from_dict({"text": ["poor<br />dull", "fine"], "label": [0, 1]}, features=features)
    asked = []
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(datasets, "load_dataset", lambda *name, split: asked.append((*name, split)) or served)
    assert read_examples(IMDB, "test", tmp_path) == [Example(0, ("poor dull",), 0), Example(1, ("fine",), 1)]
    assert asked == [("stanfordnlp/imdb", "plain_text", "test")]


def test_the_data_verb_describes_it_and_prints_what_is_held_out(tiny_imdb, capsys):
    assert main(["data", "describe", str(tiny_imdb)]) == 0
    assert capsys.readouterr().out.split() == ["IMDb", f"{tiny_imdb}/aclImdb:", "train", "40,", "test", "16"]
    assert main(["data", "heldout", "IMDb", "--data_dir", str(tiny_imdb)]) == 0
    assert capsys.readouterr().out.split() == ["2", "18", "29", "30", "31"]


@pytest.mark.slow
@pytest.mark.realdata
def test_the_real_archive_holds_two_times_25_000_reviews(shared, tmp_path):
    with tarfile.open(shared / "imdb/aclImdb.tar.gz") as archive:
        archive.extractall(tmp_path, filter="data")
    for split, size in (("train", 33_432_835), ("test", 32_650_697)):
        examples = read_examples(IMDB, split, tmp_path)
        assert [example.uid for example in examples] == list(range(25_000))
        assert [example.target for example in examples] == [0] * 12_500 + [1] * 12_500
        # huggingface/datasets, datasets/imdb/dataset_infos.json: bytes in Arrow, which keeps 12 for a row and a bound beside its text
        assert sum(path.stat().st_size for path in (tmp_path / "aclImdb" / split).rglob("*_*.txt")) == size - 12 * 25_001
        assert not any("<br" in example.texts[0] for example in examples)


# ---- what selects


@pytest.mark.parametrize("recipe", [finetune, logit_kd, mpdistil])
def test_the_held_out_tenth_selects_by_default_whatever_the_preset(recipe):
    for preset in recipe.PER_TASK:
        assert preset_settings(recipe, "IMDb", preset, [])["select_on"] == "heldout"
    assert "select_on" not in preset_settings(finetune, "CoLA", "small", [])


def test_a_run_is_selected_on_what_is_held_out_and_reports_the_test_set(tiny_bert, tiny_imdb, tmp_path, capsys):
    words = ["train", "finetune", "imdb", "--model", str(tiny_bert), "--data_dir", str(tiny_imdb), "--output_dir", str(tmp_path / "run"),
             "--max_steps", "3", "--train_batch_size", "8"]
    assert main([*words, "--select_on", "dev"]) == 1
    (said,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error")]
    assert "IMDb has no dev split" in said and "--select_on heldout" in said and not (tmp_path / "run").exists()
    assert main(words) == 0
    assert "selected on heldout: heldout/accuracy" in capsys.readouterr().out
    scores = json.loads((tmp_path / "run/scores.json").read_text())
    assert list(scores["values"]) == ["heldout/accuracy", "test/accuracy"] and list(scores["counts"].values()) == [5, 16]
    origin = json.loads((tmp_path / "run/origin.json").read_text())
    assert origin["data"] == {split: data_fingerprint(IMDB, split, tiny_imdb) for split in ("train", "test")}
    train, scored = read_splits(load_encoder(tmp_path / "run/best"), IMDB, TaskConfig(data_dir=str(tiny_imdb), select_on="heldout"))
    assert not set(train.uid) & set(scored["heldout"].uid) and len(train) + len(scored["heldout"]) == 40
    assert main(["report", "folder", str(tmp_path / "run")]) == 0
    table = capsys.readouterr().out.splitlines()
    assert "IMDb test, accuracy" in table[0] and "heldout" not in table[0] and table[-1] == "No model was selected on a reported split."
    assert main(["evaluate", "IMDb", "--checkpoint", str(tmp_path / "run"), "--data_dir", str(tiny_imdb)]) == 0
    assert f"test/accuracy {100 * scores['values']['test/accuracy']:.2f}" in capsys.readouterr().out
