"""Readers: a golden row per task, the quirks of real copies, and every malformed file answered with file:line."""
import hashlib
import logging
from pathlib import Path

import pytest

from data_utils.readers import data_fingerprint, find_folder, has_split, read_examples, read_rows
from data_utils.tasks import TASKS, Example, get_task

REAL = Path(__file__).resolve().parent.parent.parent / "shared" / "data"
PARSES = "\t".join(["bp1", "bp2", "p1", "p2"])

# task, split, file as the official data has it, the example it means
GOLDEN = [
    ("cola", "train", "CoLA/train.tsv", "gj04\t1\t\tIt's \"fine\".\ngj04\t0\t*\tFine it's.\n", Example(1, ("Fine it's.",), 0)),
    ("cola", "test", "CoLA/test.tsv", "index\tsentence\n0\tBill whistled.\n", Example(0, ("Bill whistled.",), None)),
    ("sst2", "dev", "SST-2/dev.tsv", "sentence\tlabel\na charming journey . \t1\n", Example(0, ("a charming journey . ",), 1)),
    ("mrpc", "train", "MRPC/train.tsv", "\ufeffQuality\t#1 ID\t#2 ID\t#1 String\t#2 String\n1\t7\t8\tHe said \"no.\t\"No, he said.\n",
     Example(0, ("He said \"no.", "\"No, he said."), 1)),
    ("mrpc", "test", "MRPC/test.tsv", "index\t#1 ID\t#2 ID\t#1 String\t#2 String\n0\t7\t8\tone\ttwo\n", Example(0, ("one", "two"), None)),
    ("stsb", "dev", "STS-B/dev.tsv", "index\tgenre\tfilename\tyear\told_index\tsource1\tsource2\tsentence1\tsentence2\tscore\n"
     "0\tg\tf\t2012\t4\tnone\tnone\tA man.\tA woman.\t2.600\n", Example(0, ("A man.", "A woman."), 2.6)),
    ("qqp", "train", "QQP/train.tsv", "id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate\n9\t1\t2\tWhy?\tHow?\t0\n", Example(0, ("Why?", "How?"), 0)),
    ("qqp", "test", "QQP/test.tsv", "id\tquestion1\tquestion2\n0\tWhy?\tHow?\n", Example(0, ("Why?", "How?"), None)),
    ("mnli", "train", "MNLI/train.tsv", "index\tpromptID\tpairID\tgenre\tsentence1_binary_parse\tsentence2_binary_parse\tsentence1_parse\t"
     f"sentence2_parse\tsentence1\tsentence2\tlabel1\tgold_label\n0\t1\t1n\tfiction\t{PARSES}\tIt rains.\tIt is wet.\tneutral\tcontradiction\n",
     Example(0, ("It rains.", "It is wet."), 2)),
    ("mnli", "dev_mismatched", "MNLI/dev_mismatched.tsv", "index\tsentence1\tsentence2\tlabel1\tgold_label\n0\tp\th\tentailment\tneutral\n",
     Example(0, ("p", "h"), 1)),
    ("qnli", "dev", "QNLI/dev.tsv", "index\tquestion\tsentence\tlabel\n0\tWho?\tShe.\tnot_entailment\n", Example(0, ("Who?", "She."), 1)),
    ("rte", "dev", "RTE/dev.tsv", "index\tsentence1\tsentence2\tlabel\n0\ta b\ta\tentailment\n", Example(0, ("a b", "a"), 0)),
    ("wnli", "dev", "WNLI/dev.tsv", "index\tsentence1\tsentence2\tlabel\n0\ta b\ta\t1\n", Example(0, ("a b", "a"), 1)),
    ("ax", "test", "diagnostic/diagnostic.tsv", "index\tsentence1\tsentence2\n0\tThe cat.\tThe dog.\n", Example(0, ("The cat.", "The dog."), None)),
]


def put(root: Path, file: str, text: str | bytes) -> Path:
    path = root / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


@pytest.mark.parametrize("name, split, file, text, expected", GOLDEN, ids=[f"{row[0]}-{row[1]}" for row in GOLDEN])
def test_a_golden_row_of_each_task_is_read_as_it_is_meant(tmp_path, name, split, file, text, expected):
    path = put(tmp_path, file, text)
    examples = read_examples(get_task(name), split, tmp_path)
    assert data_fingerprint(get_task(name), split, tmp_path) == hashlib.sha256(path.read_bytes()).hexdigest()
    assert examples[-1] == expected and [example.uid for example in examples] == list(range(len(examples)))


def test_every_task_but_the_demo_has_a_golden_row():
    assert {get_task(row[0]).name for row in GOLDEN} == {task.name for task in TASKS if task.suite == "glue"} - {"demo"}


def test_reversed_columns_an_aliased_header_crlf_and_a_missing_last_newline_change_nothing(tmp_path):
    put(tmp_path, "CoLA/dev.tsv", "sentence\tlabel\nFine.\t1\n")      # officially without a header
    assert read_examples(get_task("cola"), "dev", tmp_path) == [Example(0, ("Fine.",), 1)]
    put(tmp_path / "a", "SST-2/dev.tsv", "sentence\tlabel\nvery good\t1\nbad \"film\t0\n")
    put(tmp_path / "b", "sst2/dev.tsv", "\ufefflabel\tcontent\r\n1\tvery good\r\n0\tbad \"film")
    assert read_examples(get_task("sst2"), "dev", tmp_path / "a") == read_examples(get_task("sst2"), "dev", tmp_path / "b") \
        == [Example(0, ("very good",), 1), Example(1, ("bad \"film",), 0)]


def test_quotation_marks_never_join_rows_and_exotic_line_separators_stay_in_the_text(tmp_path):
    put(tmp_path, "SST-2/dev.tsv", "sentence\tlabel\n\"open\t1\nclose\"\t0\none\u2028two\x0bthree\x85\t1\n")
    assert [example.texts[0] for example in read_examples(get_task("sst2"), "dev", tmp_path)] == ["\"open", "close\"", "one\u2028two\x0bthree\x85"]


def test_class_names_are_accepted_beside_the_official_codes(tmp_path):
    put(tmp_path, "WNLI/dev.tsv", "index\tsentence1\tsentence2\tlabel\n0\ta\tb\tnot_entailment\n1\ta\tb\t0\n2\ta\tb\tentailment\n")
    assert [example.target for example in read_examples(get_task("wnli"), "dev", tmp_path)] == [0, 0, 1]


def test_a_test_split_keeps_every_row_in_place_and_its_labels_are_never_read(tmp_path):
    put(tmp_path, "RTE/test.tsv", "index\tsentence1\tsentence2\tlabel\n0\t\tb\tentailment\n1\ta\tb\tentailment\n")
    assert read_examples(get_task("rte"), "test", tmp_path) == [Example(0, ("", "b"), None), Example(1, ("a", "b"), None)]
    put(tmp_path, "QQP/test.tsv", "id\tquestion1\tquestion2\n0\tA\tB\n1\tA\n")      # leaving it out would shift the submission
    with pytest.raises(ValueError, match=r"test\.tsv:3: expected 3"):
        read_examples(get_task("qqp"), "test", tmp_path)


RTE = "index\tsentence1\tsentence2\tlabel\n0\ta\tb\tentailment\n"
MALFORMED = [
    ("rte", "RTE/dev.tsv", RTE + "1\ta\tentailment\n", r"dev\.tsv:3: expected 4 tab-separated fields .* found 3"),
    ("rte", "RTE/dev.tsv", RTE + "1\ta\tb\tentailment\textra\n", r"dev\.tsv:3: expected 4 .* found 5"),
    ("rte", "RTE/dev.tsv", RTE + "\n" + "1\ta\tb\tentailment\n", r"dev\.tsv:3: expected 4 .* found 1"),
    ("rte", "RTE/dev.tsv", RTE + "1\ta\tb\tneutral\n", r"dev\.tsv:3: expected a label among entailment, not_entailment, found 'neutral'"),
    ("rte", "RTE/dev.tsv", RTE + "1\ta\tb\t0\n", r"dev\.tsv:3: expected a label among .* found '0'"),
    ("rte", "RTE/dev.tsv", RTE + "1\ta\t \tentailment\n", r"dev\.tsv:3: expected a text in column 'sentence2', found an empty one"),
    ("rte", "RTE/dev.tsv", "", r"dev\.tsv:1: expected RTE dev, found an empty file"),
    ("rte", "RTE/dev.tsv", "index\tsentence1\tsentence2\tlabel\n", r"dev\.tsv:1: expected rows below the header, found none"),
    ("rte", "RTE/dev.tsv", "index\ttext1\tsentence2\tlabel\n0\ta\tb\tentailment\n",
     r"dev\.tsv:1: expected a header with the columns \['sentence1', 'sentence2', 'label'\], found \['index', 'text1'"),
    ("rte", "RTE/dev.tsv", RTE.encode() + b"1\tcaf\xe9\tb\tentailment\n", r"dev\.tsv:3: expected UTF-8, found byte 0xe9 at position 6"),
    ("cola", "CoLA/dev.tsv", "gj04\t1\t\tfine\ngj04\t1\tfine\n", r"dev\.tsv:2: expected 4 .* found 3"),
    ("cola", "CoLA/dev.tsv", "gj04\tyes\t\tfine\n", r"dev\.tsv:1: expected a label among 0, 1, unacceptable, acceptable, found 'yes'"),
    ("qqp", "QQP/dev.tsv", "id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate\n1\t1\t2\tA\tB\t0\t0\n", r"dev\.tsv:2: expected 6 .* found 7"),
    ("stsb", "STS-B/dev.tsv", "sentence1\tsentence2\tscore\na\tb\tgood\n", r"dev\.tsv:2: expected a score from 0 to 5, found 'good'"),
    ("stsb", "STS-B/dev.tsv", "sentence1\tsentence2\tscore\na\tb\t5.0\na\tb\t5.2\n", r"dev\.tsv:3: expected a score from 0 to 5, found '5.2'"),
    ("stsb", "STS-B/dev.tsv", "sentence1\tsentence2\tscore\na\tb\tnan\n", r"dev\.tsv:2: expected a score"),
]


@pytest.mark.parametrize("name, file, text, message", MALFORMED, ids=range(len(MALFORMED)))
def test_a_malformed_file_is_refused_with_file_and_line(tmp_path, name, file, text, message):
    put(tmp_path, file, text)
    with pytest.raises(ValueError, match=message):
        read_examples(get_task(name), "dev", tmp_path)


def test_short_rows_of_qqp_are_left_out_counted_and_said_and_uids_stay_dense(tmp_path, caplog):
    header = "id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate\n"
    put(tmp_path, "QQP/train.tsv", header + "1\t1\t2\tA\tB\t0\n2\t1\t2\tA\n3\t1\t2\tA\tB\t1\n4\t1\n5\t1\t2\tA\t\t1\n")
    with caplog.at_level(logging.WARNING):
        examples = read_examples(get_task("qqp"), "train", tmp_path)
    assert examples == [Example(0, ("A", "B"), 0), Example(1, ("A", "B"), 1), Example(2, ("A", ""), 1)]
    said = " ".join(caplog.messages)
    assert "train.tsv: left out 2 rows with fewer than 6 fields, the first in line 3" in said
    assert "kept 1 rows with an empty text, the first at" in said and "train.tsv:6" in said


CORPUS = "\ufeffQuality\t#1 ID\t#2 ID\t#1 String\t#2 String\n1\t1\t2\ta\tb\n0\t3\t4\tc\td\n1\t5\t6\te\tf\n"


def test_mrpc_is_assembled_from_microsofts_files_and_own_split_files_win(tmp_path):
    put(tmp_path, "MRPC/msr_paraphrase_train.txt", CORPUS)
    put(tmp_path, "MRPC/dev_ids.tsv", "3\t4\r\n")
    task = get_task("mrpc")
    assert read_examples(task, "train", tmp_path) == [Example(0, ("a", "b"), 1), Example(1, ("e", "f"), 1)]
    assert read_examples(task, "dev", tmp_path) == [Example(0, ("c", "d"), 0)] and has_split(task, "dev", tmp_path) and not has_split(task, "test", tmp_path)
    assert data_fingerprint(task, "train", tmp_path) != data_fingerprint(task, "dev", tmp_path)
    put(tmp_path, "MRPC/dev.tsv", "Quality\t#1 String\t#2 String\n1\tx\ty\n")
    assert read_examples(task, "dev", tmp_path) == [Example(0, ("x", "y"), 1)]


def test_mrpc_dev_ids_of_another_corpus_and_a_bad_row_of_the_corpus_are_refused(tmp_path):
    put(tmp_path, "MRPC/msr_paraphrase_train.txt", CORPUS)
    put(tmp_path, "MRPC/dev_ids.tsv", "3\t4\n3\t9\n")
    with pytest.raises(ValueError, match=r"1 of the 2 dev pairs, e.g. \('3', '9'\), are not in the corpus of 3 pairs"):
        read_examples(get_task("mrpc"), "dev", tmp_path)
    put(tmp_path, "MRPC/dev_ids.tsv", "3\t4\n")
    put(tmp_path, "MRPC/msr_paraphrase_train.txt", CORPUS + "2\t7\t8\tg\th\n")
    with pytest.raises(ValueError, match=r"msr_paraphrase_train\.txt:5: expected a label among 0, 1"):
        read_examples(get_task("mrpc"), "train", tmp_path)


def test_a_missing_split_names_the_file_and_the_command_that_fetches_it(tmp_path):
    (tmp_path / "MRPC").mkdir()
    with pytest.raises(ValueError, match=r"expected .*MRPC/train\.tsv, .* python3 data_utils/download_glue_data.py --data_dir .* --tasks MRPC"):
        read_examples(get_task("mrpc"), "train", tmp_path)


def test_folders_are_found_in_any_usual_spelling_and_an_ambiguous_one_is_refused(tmp_path):
    for name in ("COLA", "sts_b", "diagnostic", "sst2", "SST-2", "mn-li", "mnli"):
        (tmp_path / name).mkdir()
    (tmp_path / "QNLI").write_text("a file is not a folder")
    found = {name: find_folder(get_task(name), tmp_path) for name in ("cola", "stsb", "ax", "sst2", "rte", "qnli")}
    assert {name: path and path.name for name, path in found.items()} == {
        "cola": "COLA", "stsb": "sts_b", "ax": "diagnostic", "sst2": "SST-2", "rte": None, "qnli": None}
    with pytest.raises(ValueError, match="mn-li and mnli could both be MNLI"):
        find_folder(get_task("mnli"), tmp_path)


def test_a_data_directory_that_is_not_there_is_named_unless_it_is_the_default(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="data directory glu is not a directory"):
        read_examples(get_task("mrpc"), "train", "glu")
    assert find_folder(get_task("mrpc"), "./glue") is None
    assert list(tmp_path.iterdir()) == []


def test_columns_that_nothing_reads_are_not_kept(tmp_path):
    _, split, file, content, _ = next(golden for golden in GOLDEN if golden[0] == "mnli")
    put(tmp_path, file, content)
    (row,) = read_rows(get_task("mnli"), split, tmp_path)
    assert set(row.fields) == {"sentence1", "sentence2", "gold_label"}


def test_the_demo_task_is_written_where_it_is_missing_and_read_like_any_other(tmp_path):
    for split in ("train", "dev", "test"):
        examples = read_examples(get_task("demo"), split, tmp_path)
        assert {example.target for example in examples} == ({None} if split == "test" else {0, 1})
    assert (tmp_path / "demo" / "train.tsv").is_file()
    put(tmp_path, "demo/dev.tsv", "sentence\tlabel\nmine\t1\n")
    assert read_examples(get_task("demo"), "dev", tmp_path) == [Example(0, ("mine",), 1)]      # never overwritten


# ---- real files

def real(test):
    """Marks a test that reads ../shared/data."""
    return pytest.mark.realdata(pytest.mark.skipif(not REAL.is_dir(), reason="../shared/data is not there")(test))


@real
@pytest.mark.parametrize("name, counts", [
    ("cola", (8551, 1043, 1063)), ("mrpc", (3668, 408, 1725)), ("sst2", (67349, 872, 1821)), ("stsb", (5749, 1500, 1379)),
    ("wnli", (635, 71, 146)), ("qnli", (None, 5463, 5463))])
def test_the_real_files_have_their_published_row_counts(name, counts):
    for split, count in zip(("train", "dev", "test"), counts):
        if count is not None:
            examples = read_examples(get_task(name), split, REAL / "glue")
            assert len(examples) == count and examples[-1].uid == count - 1
            assert all((example.target is None) == (split == "test") for example in examples)


@real
def test_majority_classes_of_real_dev_sets_are_the_published_ones():
    # CoLA 69.1 % acceptable, WNLI 56.3 % not_entailment, MRPC 68.4 % equivalent: a flipped label order would show here
    for name, label, share in (("cola", "acceptable", 0.691), ("wnli", "not_entailment", 0.563), ("mrpc", "equivalent", 0.684)):
        task = get_task(name)
        targets = [example.target for example in read_examples(task, "dev", REAL / "glue")]
        assert targets.count(task.labels.index(label)) / len(targets) == pytest.approx(share, abs=5e-4)
