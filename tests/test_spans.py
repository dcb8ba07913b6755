"""Answers in a text: the model, the losses, and the way from logits to an answer."""

import json
import math

import numpy as np
import pytest
import torch
from transformers import AutoModelForQuestionAnswering

from data_utils.batching import collate
from data_utils.encode import EncodedDataset
from data_utils.tasks import Example, get_task
from distill.evaluate import predict
from distill.judging import judged
from distill.losses import soft_targets, span_cross_entropy, span_soft_targets, span_symmetric_kl
from distill.spans import Answering, answer_texts, answers_by_id, best_spans, by_answer
from models.checkpoint import load_encoder
from models.heads import SpanHead
from models.outputs import PADDING_LOGIT
from tests.spans import CUT, dev
from tests.training import run


# ---- the model


@pytest.mark.parametrize("model, length, theirs", [("bert", 0, "BertForQuestionAnswering"), ("deberta", 64, "DebertaV2ForQuestionAnswering")])
def test_transformers_loads_the_checkpoint_and_gives_equal_logits(model, length, theirs, span_teachers, squad):
    encoder, dataset = dev(span_teachers["SQuAD", model], squad, max_length=length)
    plain, loading = AutoModelForQuestionAnswering.from_pretrained(span_teachers["SQuAD", model], output_loading_info=True)
    assert type(plain).__name__ == theirs and not loading["missing_keys"] and not loading["unexpected_keys"]
    batch = collate(dataset, np.arange(len(dataset)), "SQuAD", encoder.tokenizer.pad_token_id)
    types = {"token_type_ids": batch.token_type_ids} if encoder.type_ids else {}
    with torch.no_grad():
        found = encoder.eval()(batch).logits
        expected = plain.eval()(input_ids=batch.input_ids, attention_mask=batch.attention_mask, **types)
    real = batch.attention_mask.bool()
    assert found.shape == (*real.shape, 2) and not real.all() and (found[~real] == PADDING_LOGIT).all()
    for column, logits in enumerate((expected.start_logits, expected.end_logits)):
        torch.testing.assert_close(found[..., column][real], logits[real], atol=1e-5, rtol=1e-4)


def test_a_plain_question_answering_folder_is_scored_as_it_is(span_teachers, squad, tiny_bert, tmp_path, caplog):
    own = json.loads((span_teachers["SQuAD", "bert"] / "scores.json").read_text())["values"]
    AutoModelForQuestionAnswering.from_pretrained(span_teachers["SQuAD", "bert"]).save_pretrained(tmp_path)
    load_encoder(span_teachers["SQuAD", "bert"]).tokenizer.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "id2label": {"0": "LABEL_0", "1": "LABEL_1"}}))
    assert run("evaluate", "SQuAD", "--checkpoint", tmp_path, "--data_dir", squad, "--output", tmp_path / "scores", *CUT) == 0
    assert "calls its labels" not in caplog.text
    assert json.loads((tmp_path / "scores").read_text())["continuous states"]["values"] == own


def test_logits_of_a_window_do_not_depend_on_padding_and_are_gathered_to_one_width(span_teachers, squad):
    encoder, dataset = dev(span_teachers["SQuAD", "bert"], squad)
    longest = int(dataset.lengths.max())
    found = predict(encoder, dataset)
    assert found.shape == (len(dataset), longest, 2)
    for row in range(len(dataset)):
        length = int(dataset.lengths[row])
        with torch.no_grad():
            alone = encoder(collate(dataset, np.array([row]), "SQuAD", 0)).logits[0].numpy()
        np.testing.assert_allclose(found[row, :length], alone, atol=1e-5)
        assert (found[row, length:] == PADDING_LOGIT).all()


def test_the_head_is_one_layer_at_every_token_in_float32():
    head = SpanHead(5, 2, 0.5).eval()
    states = torch.randn(3, 4, 5)
    torch.testing.assert_close(head(states), states @ head.out.weight.T + head.out.bias)
    with torch.autocast("cpu", torch.bfloat16):
        assert head(states).dtype == torch.float32
    assert not torch.equal(head.train()(states), head(states)), "dropout comes before it"


# ---- the losses


def padded(logits: torch.Tensor, by: int) -> torch.Tensor:
    return torch.nn.functional.pad(logits, (0, 0, 0, by), value=PADDING_LOGIT)


def test_the_loss_is_the_mean_of_start_and_end_by_hand():
    logits = torch.tensor([[[0.0, math.log(3)], [math.log(2), 0.0], [0.0, 0.0]]])  # softmax 1/4 2/4 1/4 and 3/5 1/5 1/5
    found = span_cross_entropy(logits, torch.tensor([[1, 2]]))
    assert found.tolist() == pytest.approx([(math.log(2) + math.log(5)) / 2])
    assert span_cross_entropy(padded(logits, 4), torch.tensor([[1, 2]])).tolist() == pytest.approx(found.tolist())


def test_soft_targets_are_the_mean_over_start_and_end_times_the_temperature_squared():
    student, teacher = torch.zeros(1, 2, 2), torch.tensor([[[2 * math.log(3), 0.0], [0.0, 0.0]]])  # at T = 2: 3/4 1/4 and 1/2 1/2
    by_hand = 4 * (0.75 * math.log(0.75 / 0.5) + 0.25 * math.log(0.25 / 0.5)) / 2
    assert span_soft_targets(student, teacher, 2.0).tolist() == pytest.approx([by_hand])
    one, other = torch.randn(3, 6, 2), torch.randn(3, 6, 2)
    expected = (soft_targets(one[..., 0], other[..., 0], 3.0) + soft_targets(one[..., 1], other[..., 1], 3.0)) / 2
    torch.testing.assert_close(span_soft_targets(one, other, 3.0), expected)


@pytest.mark.parametrize("loss", [lambda one, other: span_soft_targets(one, other, 2.0), span_symmetric_kl])
def test_divergences_are_zero_at_student_equal_teacher_and_padding_changes_nothing(loss):
    one, other = torch.randn(3, 6, 2, generator=torch.Generator().manual_seed(0)), torch.randn(3, 6, 2)
    assert loss(one, one).abs().max() < 1e-6 and (loss(one, other) > 1e-3).all()
    torch.testing.assert_close(loss(padded(one, 5), padded(other, 5)), loss(one, other))


TAUGHT = padded(torch.randn(2, 4, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(2)), 2)


@pytest.mark.parametrize("loss", [lambda logits: span_cross_entropy(logits, torch.tensor([[1, 2], [0, 0]])),
                                  lambda logits: span_soft_targets(logits, TAUGHT, 2.0)])
def test_the_gradient_is_that_of_finite_differences_and_none_at_padding(loss, monkeypatch):
    logits = torch.randn(2, 6, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    logits[:, 4:] = PADDING_LOGIT
    logits.requires_grad_()
    monkeypatch.setattr(torch.Tensor, "float", lambda self: self)  # finite differences need double precision
    loss(logits).sum().backward()
    step = 1e-6
    for place in ((0, 1, 0), (0, 2, 1), (1, 0, 1), (1, 3, 0)):
        moved = logits.detach().clone()
        moved[place] += step
        expected = (loss(moved).sum() - loss(logits.detach()).sum()) / step
        assert logits.grad[place].item() == pytest.approx(expected.item(), abs=1e-5)
    assert logits.grad[:, :4].abs().sum() > 0.01 and not logits.grad[:, 4:].any()


# ---- from logits to answers


def asked(task: str, contexts: list[tuple[int, str]], golds: dict[int, list[str]] | None = None) -> EncodedDataset:
    """Windows [CLS] question [SEP] words [SEP]: (question, words of the window), texts being those of the question's first window."""
    texts = {}
    for uid, context in contexts:
        texts.setdefault(uid, context)
    lengths = [4 + len(context.split()) for _, context in contexts]
    places = []
    for _, context in contexts:
        starts = np.cumsum([0, *(len(word) + 1 for word in context.split())])
        places += [(-1, -1)] * 3 + [(start, start + len(word)) for start, word in zip(starts, context.split())] + [(-1, -1)]
    questions = {uid: Example(uid, ("q", text), None, id=f"id{uid}", answers=tuple((gold, 0) for gold in (golds or {}).get(uid, []))) for uid, text in texts.items()}
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    return EncodedDataset(uid=np.arange(len(contexts)), ids=np.zeros(offsets[-1], np.int32), offsets=offsets, second=np.full(len(contexts), 3, np.int32),
                          target=np.zeros((len(contexts), 2), np.int64), group=np.array([uid for uid, _ in contexts]), places=np.array(places, np.int32),
                          questions=questions)


def logits_of(dataset: EncodedDataset, *peaks: tuple[int, int, int, float]) -> np.ndarray:
    """Zeros, PADDING_LOGIT at padding, and what is said at (window, position, start or end)."""
    found = np.zeros((len(dataset), dataset.lengths.max(), 2), np.float32)
    for row, length in enumerate(dataset.lengths):
        found[row, length:] = PADDING_LOGIT
    for row, position, kind, value in peaks:
        found[row, position, kind] = value
    return found


def test_an_answer_lies_in_the_context_begins_before_it_ends_and_is_not_too_long():
    dataset = asked("SQuAD", [(0, "a b c d e")])
    logits = logits_of(dataset, (0, 1, 0, 90), (0, 2, 1, 90), (0, 8, 1, 80), (0, 4, 0, 5), (0, 6, 1, 4), (0, 3, 1, 6))
    score, first, last = best_spans(logits, dataset, Answering())
    assert (score[0], first[0], last[0]) == (9, 4, 6), "the question (1), [SEP] (2, 8) and an end before the start (3) are none"
    score, first, last = best_spans(logits, dataset, Answering(max_tokens=2))
    assert (score[0], first[0], last[0]) == (6, 3, 3), "b c d is three tokens long: the end alone is better than the start alone"
    assert best_spans(logits, dataset, Answering(n_best=1))[0][0] == -np.inf, "the likeliest start (4) and the likeliest end (3) are no span"
    assert answer_texts(logits, dataset, get_task("SQuAD"), Answering(n_best=1)) == {0: ""}


def test_the_best_of_all_windows_of_a_question_answers_it():
    dataset = asked("SQuAD", [(4, "a b c"), (9, "x y"), (4, "a b c")])
    logits = logits_of(dataset, (0, 3, 0, 5), (0, 3, 1, 5), (2, 4, 0, 4), (2, 5, 1, 7), (1, 4, 0, 1), (1, 4, 1, 1), (0, 0, 0, 99))
    assert answer_texts(logits, dataset, get_task("SQuAD"), Answering()) == {4: "b c", 9: "y"}
    swapped = judged(logits[..., ::-1], ("end", "start"), dataset, get_task("SQuAD"))
    assert swapped.texts() == {4: "b c", 9: "y"}, "labels are mapped by name"


def test_a_question_has_no_answer_where_cls_scores_above_the_best_one_in_every_window():
    dataset = asked("SQuAD2", [(0, "p q"), (1, "x y"), (1, "x y")], {1: ["y"]})
    logits = logits_of(dataset, (0, 3, 0, 2), (0, 3, 1, 2), (0, 0, 0, 3), (0, 0, 1, 3), (1, 0, 0, 50), (1, 0, 1, 50), (2, 4, 0, 3), (2, 4, 1, 3))
    task = get_task("SQuAD2")
    assert answer_texts(logits, dataset, task, Answering()) == {0: "", 1: "y"}, "1: the window that is least for no answer counts"
    assert answer_texts(logits, dataset, task, Answering(threshold=2.5)) == {0: "p", 1: "y"}
    assert answer_texts(logits, dataset, get_task("SQuAD"), Answering())[0] == "p"
    assert answer_texts(logits, dataset, task, Answering(threshold=-7)) == {0: "", 1: ""}
    found = judged(logits, ("start", "end"), dataset, task)
    assert found.predicted.tolist() == [2, 2] and found.target.tolist() == [0, 1]
    wrong = judged(logits, ("start", "end"), dataset, task, Answering(threshold=2.5))
    assert by_answer(wrong, task) == {"with an answer": (1, {"squad_em": 1, "squad_f1": 1}), "without one": (1, {"squad_em": 0, "squad_f1": 0})}


def test_answers_are_written_by_id_and_two_for_one_id_are_refused():
    dataset = asked("SQuAD", [(0, "a"), (1, "b")])
    assert answers_by_id({0: "a", 1: "b"}, dataset) == {"id0": "a", "id1": "b"}
    dataset.questions[1] = Example(1, ("q", "b"), None, id="id0")
    with pytest.raises(ValueError, match="two questions are called 'id0'"):
        answers_by_id({0: "a", 1: "b"}, dataset)
