"""The demo task: its bytes are pinned, its labels need word order, its true senses point at the words."""

import hashlib
import threading
from collections import Counter
from pathlib import Path

import pytest
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression

from data_utils import demo
from data_utils.demo_words import ambiguous_words

FILES = ("train.tsv", "dev.tsv", "test.tsv", "senses.tsv")
SHA256 = "214aeef0aa2897b59b92ebbc1374ade761017390ea2e12e4253cdf9f75979ff2"    # of the four files, one after the other
VOCABULARY = Path(__file__).parents[2] / "shared/data/vocab/bert-base-uncased/vocab.txt"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data") / "demo"
    demo.write(folder)
    return folder


@pytest.fixture(scope="module")
def rows(folder):
    """{split: [(sentence, label)]} as they stand in the files."""
    rows = {}
    for split in demo.PAIRS_PER_WORD:
        header, *lines = (folder / f"{split}.tsv").read_text(encoding="utf-8").splitlines()
        assert header == "sentence\tlabel"
        rows[split] = [(sentence, int(label)) for sentence, label in (line.split("\t") for line in lines)]
    return rows


def _digest(folder):
    return hashlib.sha256(b"".join((folder / name).read_bytes() for name in FILES)).hexdigest()


def test_the_bytes_are_the_pinned_ones_and_nothing_else_is_left_behind(folder):
    assert _digest(folder) == SHA256
    assert sorted(p.name for p in folder.iterdir()) == sorted(FILES)
    assert [p.name for p in folder.parent.iterdir()] == [folder.name]


def test_writing_over_an_older_version_gives_the_same_bytes_and_keeps_other_files(tmp_path):
    folder = tmp_path / "demo"
    folder.mkdir()
    (folder / "train.tsv").write_text("an older version\n")
    (folder / "notes.txt").write_text("mine\n")
    demo.write(folder)
    assert _digest(folder) == SHA256
    assert (folder / "notes.txt").read_text() == "mine\n"


def test_writers_at_the_same_time_do_no_harm(tmp_path):
    folder, errors = tmp_path / "deep" / "demo", []

    def write():
        try:
            demo.write(folder)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=write) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert _digest(folder) == SHA256
    assert [p.name for p in folder.parent.iterdir()] == ["demo"]


def test_a_bag_of_words_does_no_better_than_chance(rows):
    vectorizer = CountVectorizer(token_pattern=r"\S+")
    sentences, labels = zip(*rows["train"])
    model = LogisticRegression(max_iter=300).fit(vectorizer.fit_transform(sentences), labels)
    for split in ("dev", "test"):
        sentences, labels = zip(*rows[split])
        assert abs(model.score(vectorizer.transform(sentences), labels) - 0.5) <= 0.06


def test_every_sentence_has_a_twin_of_the_same_words_and_the_other_label_in_its_split(rows):
    for split in rows.values():
        bags = Counter((" ".join(sorted(sentence.split())), label) for sentence, label in split)
        assert all(bags[bag, 1 - label] == count for (bag, label), count in bags.items())


def test_the_place_of_the_ambiguous_word_does_not_tell_its_label(folder, rows):
    for split in rows:
        early = Counter()
        for (sentence, label), sense in zip(rows[split], demo.read_true_senses(folder, split)):
            early[label] += sense.word_index < len(sentence.split()) / 2
        n = len(rows[split])
        assert abs(early[0] - early[1]) <= 0.05 * n, (split, early)


def test_sentences_have_ten_to_twenty_five_words_and_labels_are_balanced(rows):
    assert {split: len(lines) for split, lines in rows.items()} == {"train": 4000, "dev": 800, "test": 800}
    for lines in rows.values():
        assert all(10 <= len(sentence.split()) <= 25 for sentence, _ in lines)
        assert all(sentence == " ".join(sentence.split()).lower() for sentence, _ in lines)
        assert abs(sum(label for _, label in lines) / len(lines) - 0.5) <= 0.01


def test_splits_share_no_sentence_and_no_pair_of_clauses(rows):
    sentences = [sentence for lines in rows.values() for sentence, _ in lines]
    assert len(sentences) == len(set(sentences))
    for word in ambiguous_words():
        cells = demo._clause_pairs_by_split(word)
        pairs = [pair for split in cells.values() for pair in split]
        assert len(pairs) == len(set(pairs)) == len(word.clauses[0]) * len(word.clauses[1])
        for clauses in zip(*cells["train"]):
            assert word.clauses[0][-1] not in clauses and word.clauses[1][-1] not in clauses


def test_every_true_sense_points_at_its_word_and_agrees_with_the_label(folder, rows):
    label_of = {sense: label for word in ambiguous_words() for label, sense in enumerate(word.senses)}
    for split, lines in rows.items():
        senses = demo.read_true_senses(folder, split)
        assert [sense.row for sense in senses] == list(range(len(lines)))
        for (sentence, label), sense in zip(lines, senses):
            words = sentence.split()
            assert words[sense.word_index] == sense.word and words.count(sense.word) == 1
            assert sense.sense.startswith(f"{sense.word}/") and label_of[sense.sense] == label


def test_every_sense_of_at_least_36_words_occurs_30_times_in_train(folder):
    counts = Counter(sense.sense for sense in demo.read_true_senses(folder, "train"))
    assert len(counts) >= 72 and set(counts) == {sense for word in ambiguous_words() for sense in word.senses}
    assert min(counts.values()) >= 30


def test_every_clause_has_one_slot_where_any_noun_fits():
    for word in ambiguous_words():
        for clause in word.clauses[0] + word.clauses[1]:
            words = clause.split()
            assert words.count("_") == 1, clause
            assert words[words.index("_") - 1] not in ("a", "an", "the"), clause
            assert not {word.word, *word.neutral} & set(clause.replace("/", " ").split()), clause


def test_a_malformed_row_of_true_senses_is_reported_with_its_line(tmp_path):
    (tmp_path / "senses.tsv").write_text(f"{demo.SENSES_HEADER}\ntrain\t0\tbank\t3\tbank/river\ntrain\tx\tbank\t3\tbank/river\n")
    with pytest.raises(ValueError, match=r"senses\.tsv:3: "):
        demo.read_true_senses(tmp_path, "train")


def test_unknown_splits_and_missing_files_are_answered_with_what_to_do(folder, tmp_path):
    with pytest.raises(ValueError, match="train, dev, test"):
        demo.read_true_senses(folder, "validation")
    with pytest.raises(FileNotFoundError, match=r"demo\.write"):
        demo.read_true_senses(tmp_path, "dev")


@pytest.mark.realdata
@pytest.mark.skipif(not VOCABULARY.is_file(), reason=f"{VOCABULARY} is not here")
def test_every_ambiguous_word_and_neutral_noun_is_one_token_of_bert():
    vocabulary = set(VOCABULARY.read_text(encoding="utf-8").splitlines())
    nouns = {noun for word in ambiguous_words() for noun in (word.word, *word.neutral)}
    assert nouns <= vocabulary
