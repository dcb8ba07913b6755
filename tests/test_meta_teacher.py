"""The meta-teacher, what the student is measured against it by, and the student of several tasks."""

import math

import numpy as np
import pytest
import torch

from data_utils.batching import collate
from data_utils.tasks import get_task
from distill import meta_teacher
from distill.evaluate import encode_for, encode_split, predict, score
from distill.meta_teacher import HeadLearning, Learning, MetaScores, MetaTeaching, QuizObserver, TaskLoss, features, pooled
from models.checkpoint import load_encoder
from models.encoder import TaskInfo
from models.multitask import MultiTask
from tests.training import settings


def test_answers_are_judged_by_hand_computed_values():
    classes, scores = TaskLoss(get_task("RTE")), TaskLoss(get_task("STS-B"))
    logits, target = torch.tensor([[0.0, np.log(3.0)]]), torch.tensor([1])
    assert classes.loss(logits, target).item() == pytest.approx(-np.log(0.75)) and classes.doubt(logits, target).item() == pytest.approx(0.25)
    assert scores.loss(torch.tensor([[2.0]]), torch.tensor([4.5])).item() == pytest.approx(0.25)
    assert scores.doubt(torch.tensor([[2.0]]), torch.tensor([4.5])).item() == pytest.approx(0.5)


@pytest.mark.parametrize("compete", [False, True])
def test_the_meta_teacher_is_asked_with_and_against_the_student(compete, superglue, superglue_teachers):
    meta = load_encoder(superglue_teachers["COPA"]).eval()
    task, asked = get_task("COPA"), encode_split(meta, get_task("COPA"), "dev", str(superglue))
    own = features(meta, asked)
    assert own.shape == (8, 2, 32)
    np.testing.assert_allclose(meta.head.classify(torch.from_numpy(own).flatten(0, 1)).view(8, 2).detach().numpy(), predict(meta, asked), atol=1e-6)
    its = np.random.default_rng(0).normal(size=own.shape).astype(np.float32)
    objective, batch = MetaTeaching(task, asked, own, its, compete), collate(asked, np.array([3, 1]), "COPA", 0)
    found = objective(meta, batch, 0.0)
    probabilities = [meta.head.classify(torch.from_numpy(known[[3, 1]]).flatten(0, 1)).view(2, 2).softmax(-1) for known in (own, its)]
    right = [p[torch.arange(2), batch.target] for p in probabilities]
    expected = {"teacher": -right[0].log(), "teacher_doubt": 1 - right[0], "student_doubt": 1 - right[1]} if compete \
        else {"teacher": -right[0].log(), "student": -right[1].log()}
    assert found.keys() == expected.keys() == objective.weights(0).keys()
    for name, value in expected.items():
        assert found[name].item() == pytest.approx(value.sum().item(), rel=1e-5)
    assert objective.weights(0) == ({"teacher": 1.0, "teacher_doubt": 1.0, "student_doubt": -1.0} if compete else {"teacher": 0.5, "student": 0.5})


@pytest.mark.parametrize("name", ["COPA", "MultiRC"])
def test_the_meta_teachers_scores_follow_its_last_layer_and_are_those_of_the_whole_model(name, superglue, superglue_teachers, monkeypatch):
    meta, task = load_encoder(superglue_teachers[name]).eval(), get_task(name)
    splits = {"heldout": encode_split(meta, task, "train", str(superglue)), "dev": encode_split(meta, task, "dev", str(superglue))}
    known = MetaScores(task, splits, {split: features(meta, dataset) for split, dataset in splits.items()})
    with torch.no_grad():
        meta.head.out.weight.copy_(torch.randn_like(meta.head.out.weight))
        expected = score(meta, task, splits)
        monkeypatch.setattr(meta_teacher, "predict", lambda *_: pytest.fail("the encoder runs again"))
        found = known(meta, -math.inf)
        assert known(meta, 1.0).values.keys() == {key for key in expected.values if key.startswith("heldout/")}, "what does not select is left out"
    assert found.values == pytest.approx(expected.values) and found.selected_on == "heldout" and found.predictions.keys() == splits.keys()


@pytest.fixture
def several(superglue_teachers) -> MultiTask:
    torch.manual_seed(0)
    return MultiTask(load_encoder(superglue_teachers["COPA"]), [TaskInfo("STS-B", 1, ("a", "b"), (), "mean"), TaskInfo("RTE", 1, ("a", "b"), ("x", "y"), "mean")])


def test_a_task_is_answered_by_its_own_head_and_what_is_exported_answers_alone(several, superglue, tmp_path):
    asked = encode_split(several, get_task("COPA"), "dev", str(superglue))
    alone = predict(several, asked)
    batch = collate(asked, np.arange(3), "COPA", 0)
    several.eval()
    shapes = {"COPA": (3, 2), "STS-B": (6, 1), "RTE": (6, 2)}
    for task, shape in shapes.items():
        one = type(batch)(task, batch.uid, batch.input_ids, batch.attention_mask, batch.token_type_ids, batch.target, batch.choices)
        assert several(one).logits.shape == shape
    several.heads["RTE"].out.weight.data.fill_(7)
    several.export(tmp_path)
    np.testing.assert_allclose(predict(load_encoder(tmp_path), asked), alone, atol=1e-6)
    several.save(tmp_path)
    fresh = MultiTask(several, list(several.infos.values())[1:])
    fresh.restore(tmp_path)
    assert (fresh.heads["RTE"].out.weight == 7).all()


@pytest.mark.parametrize("reward", ["binary", "real"])
def test_the_observer_rewards_being_surer_than_the_meta_teacher(reward, several, superglue):
    asked = encode_split(several, get_task("COPA"), "dev", str(superglue))
    meta = torch.randn(8, 2, generator=torch.Generator().manual_seed(0))
    observer = QuizObserver(get_task("COPA"), asked, meta, several.width, settings(), reward, fixed=False)
    several.train()
    view, found = observer.look(several, collate(asked, np.array([0, 5, 6]), "COPA", 0))
    own, theirs = (torch.as_tensor(logits[[0, 5, 6]]).softmax(-1)[torch.arange(3), torch.tensor(asked.target[[0, 5, 6]])]
                   for logits in (predict(several, asked), meta))
    expected = ((own > theirs).float() if reward == "binary" else own - theirs).mean().item()
    assert found == pytest.approx(expected, abs=1e-5) and not view.requires_grad and view.shape == (32,) == (observer.width,)
    np.testing.assert_allclose(32 * view, features(several, asked)[[0, 5, 6]].reshape(6, 32).mean(0), atol=1e-5)


def test_the_published_state_is_a_function_of_the_heads_weights_alone(several, superglue):
    asked = encode_split(several, get_task("COPA"), "dev", str(superglue))
    observer = QuizObserver(get_task("COPA"), asked, torch.zeros(8, 2), several.width, settings(), "real", fixed=True)
    one, other = (observer.look(several, collate(asked, np.array([row]), "COPA", 0))[0] for row in (0, 3))
    assert torch.equal(one, other) and one.shape == (32,)
    several.head.dense.weight.data.add_(1)
    assert not torch.equal(observer.look(several, collate(asked, np.array([0]), "COPA", 0))[0], one)


def test_every_head_has_a_gradient_in_every_step(several, superglue):
    """Ranks wait for each other's."""
    asked = encode_split(several, get_task("COPA"), "dev", str(superglue))
    terms = Learning({"COPA": get_task("COPA")}, compete=True)(several, collate(asked, np.arange(2), "COPA", 0), 0.0)
    sum(terms.values()).backward()
    assert all(parameter.grad is not None for parameter in several.parameters())
    assert several.heads["RTE"].out.weight.grad.abs().sum() == 0 < several.head.out.weight.grad.abs().sum()


def test_heads_learn_alone_what_they_would_above_the_student(several, superglue):
    """Tasks of choices and of classes; what the heads read is computed in other batches than these, the student never again."""
    several.eval()
    tasks = {name: get_task(name) for name in ("COPA", "RTE")}
    pools = {name: encode_for(several, task, "dev", str(superglue)) for name, task in tasks.items()}
    read = {name: pooled(several, name, pool) for name, pool in pools.items()}
    assert read["COPA"].shape == (8, 2, 32) and read["RTE"].shape[1:] == (1, 32)
    alone, whole = HeadLearning(tasks, pools, read), Learning(tasks, compete=False)
    for name in tasks:
        batch, gradients = collate(pools[name], np.array([4, 1, 2]), name, 0), []
        for objective in (alone, whole):
            several.zero_grad()
            (loss,) = objective(several, batch, 0.0).values()
            loss.backward()
            gradients.append([parameter.grad.clone() for parameter in several.head_of(name).parameters()])
            assert (several.backbone.embeddings.word_embeddings.weight.grad is None) == (objective is alone)
        for one, other in zip(*gradients, strict=True):
            torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-4)
