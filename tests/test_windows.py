"""Windows over long texts: what they hold, where their tokens stand, and where the answer is."""

import numpy as np
import pytest
from tokenizers.implementations import BertWordPieceTokenizer
from transformers import BertTokenizerFast

from data_utils.answers import EXACT, credit
from data_utils.batching import collate
from data_utils.draws import split_held_out
from data_utils.readers import read_examples
from data_utils.tasks import Example, get_task
from data_utils.windows import Windows, check_found, cut_questions, encode_windows, found_share
from models.pretrained import load_tokenizer

WORDS = "the a film day man story house was is very and of with river bank money tree good".split()
CONTEXT = " ".join(WORDS)  # 18 tokens of the tiny BERT
QUESTION = "was bad"


def ask(answer: str | None = "money tree", uid: int = 0, context: str = CONTEXT, question: str = QUESTION) -> Example:
    answers = ((answer, context.index(answer)),) if answer else ()
    return Example(uid, (question, context), None, id=f"q{uid}", answers=answers)


@pytest.fixture
def tokenizer(tiny_bert):
    return load_tokenizer(str(tiny_bert))


def words(dataset, row: int, tokenizer) -> str:
    return " ".join(tokenizer.convert_ids_to_tokens(dataset.ids[dataset.offsets[row]:dataset.offsets[row + 1]].tolist()))


def test_a_long_text_is_cut_into_windows_that_share_tokens(tokenizer):
    dataset = encode_windows([ask(uid=7)], tokenizer, 13, Windows(stride=2, question=2))
    assert [words(dataset, row, tokenizer) for row in range(len(dataset))] == [
        "[CLS] was bad [SEP] the a film day man story house was [SEP]",
        "[CLS] was bad [SEP] house was is very and of with river [SEP]",
        "[CLS] was bad [SEP] with river bank money tree good [SEP]"]
    assert dataset.uid.tolist() == [0, 1, 2] and dataset.group.tolist() == [7, 7, 7] and dataset.second.tolist() == [4, 4, 4]
    assert dataset.target.tolist() == [[0, 0], [0, 0], [7, 8]], "[CLS] where the window does not hold the answer"
    third = dataset.places[dataset.offsets[2]:]
    assert third[:4].tolist() == third[-1:].tolist() * 4 == [[-1, -1]] * 4, "question and special tokens stand nowhere"
    assert CONTEXT[third[7, 0]:third[8, 1]] == "money tree"


def test_batches_have_the_models_segments_and_both_positions(tokenizer):
    dataset = encode_windows([ask(), ask("film", 1, "film")], tokenizer, 30, Windows(2, 4))
    batch = collate(dataset, np.arange(2), "SQuAD", 0)
    theirs = tokenizer(QUESTION, CONTEXT)
    assert batch.input_ids[0].tolist() == theirs["input_ids"] and batch.token_type_ids[0].tolist() == tokenizer(
        QUESTION, CONTEXT, return_token_type_ids=True)["token_type_ids"]
    assert batch.target.tolist() == [[4 + WORDS.index("money"), 4 + WORDS.index("tree")], [4, 4]]
    assert batch.attention_mask.sum(1).tolist() == [4 + 18 + 1, 6] and batch.select([1]).target.tolist() == [[4, 4]]


@pytest.mark.parametrize("answer, first, last", [("the", 4, 4), ("good", 21, 21), (CONTEXT, 4, 21), ("ouse", 10, 10), ("an st", 8, 9), ("tree ", 20, 20)])
def test_the_first_and_the_last_token_hold_the_answer(answer, first, last, tokenizer):
    """Of words that it cuts through, the whole."""
    example = Example(0, (QUESTION, CONTEXT), None, answers=((answer.strip(), CONTEXT.index(answer)),))
    dataset = encode_windows([example], tokenizer, 60, Windows(2, 4))
    assert dataset.target.tolist() == [[first, last]]


def test_the_first_answer_counts_and_none_or_an_untold_one_is_cls_or_minus_one(tokenizer):
    several = Example(0, (QUESTION, CONTEXT), None, answers=(("film", CONTEXT.index("film")), ("tree", CONTEXT.index("tree"))))
    untold = Example(2, (QUESTION, CONTEXT), None)
    dataset = encode_windows([several, ask(None, 1), untold], tokenizer, 60, Windows(2, 4))
    assert dataset.target.tolist() == [[6, 6], [0, 0], [-1, -1]] and dataset.labelled
    assert not encode_windows([untold], tokenizer, 60, Windows(2, 4)).labelled


def test_a_window_that_holds_half_an_answer_points_at_cls(tokenizer):
    dataset = encode_windows([ask("house was is")], tokenizer, 13, Windows(2, 2))
    assert dataset.target.tolist() == [[0, 0], [4, 6], [0, 0]]
    dataset = encode_windows([ask("story house was is")], tokenizer, 13, Windows(2, 2))
    assert dataset.target.tolist() == [[0, 0]] * 3 and found_share(dataset) == 0


def test_blanks_that_sentencepiece_counts_to_the_next_word_are_no_part_of_an_answer(tiny_deberta):
    tokenizer = load_tokenizer(str(tiny_deberta))
    context = "the film   was good and bad"
    for answer in ("film", "the", "was", "good and", "bad"):
        dataset = encode_windows([ask(answer, context=context)], tokenizer, 60, Windows(2, 4))
        (first, last), = dataset.target
        assert first > 0 and context[dataset.places[first, 0]:dataset.places[last, 1]] == answer


def test_questions_are_cut_and_that_is_said(tokenizer, caplog):
    caplog.set_level("INFO")
    assert cut_questions(["the film was good", "the film"], tokenizer, 3) == ["the film was", "the film"]
    assert "1 of 2 questions were cut at 3 tokens (--max_query_length)" in caplog.text
    dataset = encode_windows([ask(question="the film was good")], tokenizer, 60, Windows(2, 3))
    assert words(dataset, 0, tokenizer).startswith("[CLS] the film was [SEP] the a")


def test_settings_that_leave_no_room_for_the_text_are_refused(tokenizer):
    with pytest.raises(ValueError, match="--max_length 13 --max_query_length 2 --stride 8: beside such a question a window holds 8 tokens"):
        encode_windows([ask()], tokenizer, 13, Windows(8, 2))
    encode_windows([ask()], tokenizer, 13, Windows(7, 2))


def test_a_train_set_most_of_whose_answers_lie_in_no_window_is_refused_with_the_share(tokenizer):
    long = "story house was is very"
    two = encode_windows([ask(), ask(long, 1)], tokenizer, 13, Windows(2, 2))
    assert found_share(two) == 0.5
    check_found(two, "SQuAD train")
    with pytest.raises(ValueError, match="SQuAD train: the answers of 33.3 % of its questions lie in some window, expected half"):
        check_found(encode_windows([ask(), ask(long, 1), ask(long, 2), ask(None, 3)], tokenizer, 13, Windows(2, 2)), "SQuAD train")
    with pytest.raises(ValueError, match="every answer is empty"):
        check_found(encode_windows([Example(0, (QUESTION, CONTEXT), None)], tokenizer, 13, Windows(2, 2)), "SQuAD train")


def test_windows_of_a_question_are_held_out_together_and_keep_their_places(tokenizer):
    dataset = encode_windows([ask(uid=uid) for uid in range(40)], tokenizer, 13, Windows(2, 2))
    rest, held = split_held_out(dataset)
    assert len(held) % 3 == 0 and 0 < len(held) < len(dataset) and not set(rest.group) & set(held.group)
    assert held.places.shape == (len(held.ids), 2) and held.target.tolist() == [[0, 0], [0, 0], [7, 8]] * (len(held) // 3)
    np.testing.assert_array_equal(held.places[:held.offsets[3]], dataset.places[:dataset.offsets[3]])


@pytest.mark.realdata
@pytest.mark.parametrize("task, split, share", [("TyDiQA", "train", 0.98), ("SQuAD", "dev", 0.995)])
def test_gold_answers_come_back_through_windows_from_the_real_files(task, split, share, shared):
    """Of every tenth question; what is not equal are answers that begin or end within a word."""
    words_file = shared / "vocab" / "bert-base-uncased" / "vocab.txt"
    tokenizer = BertTokenizerFast(tokenizer_object=BertWordPieceTokenizer(str(words_file))._tokenizer)
    dataset = encode_windows(read_examples(get_task(task), split, shared)[::10], tokenizer, 384)
    right = set()
    for row in np.flatnonzero(dataset.target[:, 0] > 0):
        example, (first, last) = dataset.questions[dataset.group[row]], dataset.offsets[row] + dataset.target[row]
        found = example.texts[1][dataset.places[first, 0]:dataset.places[last, 1]]
        if credit(found, [text for text, _ in example.answers]) == EXACT:
            right.add(example.uid)
    assert found_share(dataset) == 1.0 and len(right) / len(dataset.questions) >= share
