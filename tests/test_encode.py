"""Encoding: special tokens, segments, truncation, the order of the texts, targets."""

import logging

import numpy as np
import pytest
from transformers import BertJapaneseTokenizer

from data_utils import encode as encode_module
from data_utils.encode import encode, encode_texts
from data_utils.tasks import Example
from models.pretrained import load_tokenizer

CLS, SEP = 2, 3


@pytest.fixture(scope="module")
def tokenizer(tiny_bert):
    return load_tokenizer(str(tiny_bert))


def words(tokenizer, text: str) -> list[int]:
    return tokenizer.convert_tokens_to_ids(text.split())


def row(dataset, index) -> list[int]:
    return dataset.ids[dataset.offsets[index]:dataset.offsets[index + 1]].tolist()


def test_a_sentence_stands_between_cls_and_sep(tokenizer):
    dataset = encode([Example(0, ("the good film",), 1)], tokenizer, 64)
    assert row(dataset, 0) == [CLS, *words(tokenizer, "the good film"), SEP]
    assert dataset.second.tolist() == [5], "a single sentence has no second segment"


def test_the_second_segment_of_a_pair_begins_after_the_first_sep(tokenizer):
    dataset = encode([Example(7, ("the good film", "a river"), 0), Example(9, ("sad", "very warm day"), 1)], tokenizer, 64)
    assert row(dataset, 0) == [CLS, *words(tokenizer, "the good film"), SEP, *words(tokenizer, "a river"), SEP]
    assert dataset.second.tolist() == [5, 3]
    assert dataset.uid.tolist() == [7, 9] and dataset.target.tolist() == [0, 1]
    assert dataset.lengths.tolist() == [8, 7] and len(dataset) == 2


def test_a_tokenizer_without_segments_marks_pairs_too(tiny_deberta):
    tokenizer = load_tokenizer(str(tiny_deberta))
    dataset = encode([Example(0, ("the good film", "a river"), 0)], tokenizer, 64)
    ids = row(dataset, 0)
    assert ids[0] == tokenizer.cls_token_id and ids[-1] == tokenizer.sep_token_id
    assert ids[dataset.second[0] - 1] == tokenizer.sep_token_id and dataset.second[0] < len(ids)


def test_a_text_order_permutes_the_texts(tokenizer):
    dataset = encode([Example(0, ("the good film", "a river"), 0)], tokenizer, 64, text_order=[1, 0])
    assert row(dataset, 0) == [CLS, *words(tokenizer, "a river"), SEP, *words(tokenizer, "the good film"), SEP]
    assert dataset.second.tolist() == [4]


def test_truncation_takes_from_the_longer_text(tokenizer):
    long, short = "the good film is very warm", "a river"
    first = encode([Example(0, (long, short), 0)], tokenizer, 8)
    assert row(first, 0) == [CLS, *words(tokenizer, "the good film"), SEP, *words(tokenizer, short), SEP]
    second = encode([Example(0, (short, long), 0)], tokenizer, 8)
    assert row(second, 0) == [CLS, *words(tokenizer, short), SEP, *words(tokenizer, "the good film"), SEP]
    single = encode([Example(0, (long,), 0)], tokenizer, 5)
    assert row(single, 0) == [CLS, *words(tokenizer, "the good film"), SEP]


def test_the_number_of_cut_rows_is_said(tokenizer, caplog):
    texts = ["the good film is very warm", "a river", "the house and the river bank"]
    with caplog.at_level(logging.INFO, encode_module.__name__):
        encode([Example(i, (text,), 0) for i, text in enumerate(texts)], tokenizer, 6)
    assert "2 of 3" in caplog.text and "--max_length" in caplog.text
    caplog.clear()
    with caplog.at_level(logging.INFO, encode_module.__name__):
        encode([Example(0, ("a river",), 0)], tokenizer, 6)
    assert caplog.text == ""


def test_many_rows_are_read_in_chunks_with_the_same_result(tokenizer, monkeypatch):
    texts = [("the " * (1 + i % 5) + "film", "a " * (1 + i % 3) + "day") for i in range(23)]
    whole = list(encode_texts(texts, tokenizer, 9))
    monkeypatch.setattr(encode_module, "CHUNK", 4)
    assert list(encode_texts(iter(texts), tokenizer, 9)) == whole and len(whole) == 23


@pytest.mark.parametrize("model", ["tiny_bert", "tiny_deberta"])
@pytest.mark.parametrize("side", ["right", "left"])
def test_repeated_texts_are_encoded_as_transformers_encodes_them(model, side, request):
    tokenizer = load_tokenizer(str(request.getfixturevalue(model)))
    tokenizer.truncation_side = side
    passages, answers = ["the good film " * 9, "a river", "", "Straße, 東京! [SEP] " * 4], ["warm", "the house " * 12, ""]
    pairs = [(passage, answer) for passage in passages for answer in answers]
    for rows in (pairs, [(text,) for text in passages * 2]):
        expected = tokenizer(*map(list, zip(*rows)), truncation=True, max_length=14, return_token_type_ids=True)
        found = list(encode_texts(rows, tokenizer, 14))
        assert [ids for ids, _ in found] == expected["input_ids"]
        assert [start for _, start in found] == [types.index(1) if 1 in types else len(types) for types in expected["token_type_ids"]]


def test_a_tokenizer_of_python_alone_encodes_too(tmp_path):
    (tmp_path / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "good", "film", "river"]))
    tokenizer = BertJapaneseTokenizer(str(tmp_path / "vocab.txt"), word_tokenizer_type="basic")
    assert not tokenizer.is_fast
    assert list(encode_texts([("the good film", "river"), ("the " * 9, "river")], tokenizer, 8)) == [
        ([2, 5, 6, 7, 3, 8, 3], 5), ([2, 5, 5, 5, 5, 3, 8, 3], 6)]


def test_targets_keep_their_kind_and_unlabelled_rows_are_marked(tokenizer):
    def target(*targets):
        return encode([Example(i, ("film",), value) for i, value in enumerate(targets)], tokenizer, 9).target

    assert target(1, 0).dtype == np.int64 and target(None, None).tolist() == [-1, -1]
    scores = target(2.5, 0.0)
    assert scores.dtype == np.float32 and scores.tolist() == [2.5, 0.0]
    assert np.isnan(target(1.0, None)[1])


def test_take_gives_the_rows_asked_for_in_that_order(tokenizer):
    texts = ["the good film", "a", "very warm day and house", "sad story"]
    dataset = encode([Example(10 + i, (text, "man"), i % 2) for i, text in enumerate(texts)], tokenizer, 64)
    part = dataset.take(np.array([3, 0, 3]))
    assert [row(part, i) for i in range(3)] == [row(dataset, 3), row(dataset, 0), row(dataset, 3)]
    assert part.uid.tolist() == [13, 10, 13] and part.target.tolist() == [1, 0, 1]
    assert part.second.tolist() == dataset.second[[3, 0, 3]].tolist()
    assert part.offsets[-1] == len(part.ids)
    assert len(dataset.take(np.array([], np.int64))) == 0


def test_rows_without_room_for_their_texts_are_refused(tokenizer):
    for texts, least in (("the film",), 3), (("the film", "a story"), 5):
        assert list(encode([Example(0, texts, 0)], tokenizer, least).lengths) == [least]
        with pytest.raises(ValueError, match=f"--max_length {least - 1}: .* are {least}"):
            encode([Example(0, texts, 0)], tokenizer, least - 1)


def test_no_examples_are_refused(tokenizer):
    with pytest.raises(ValueError, match="no examples"):
        encode([], tokenizer, 9)
