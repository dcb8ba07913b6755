"""Pre-training on tiny models and real code paths: what is learned, resumed, shared out over ranks, counted, drawn, and refused."""

import json
import logging
from contextlib import nullcontext

import numpy as np
import pytest
import torch
from transformers import AutoModel, AutoModelForMaskedLM, AutoTokenizer

from data_utils.corpus import Corpus
from data_utils.text.batches import TextStream, fixed_batches
from data_utils.text.masking import IGNORED, Masking
from distill import workers
from distill.config import parse
from distill.language_terms import Directions, MaskedWords, SoftWords
from distill.precision import autocast, cast_products
from distill.pretraining import WORD_TERMS, Pretraining, Validation
from distill.recipes import pretrain
from distill.teacher import LiveTeacher, NoTeacher
from distill.terms import AttentionScores, HiddenStates, Relations
from models.pretrained import masked_lm
from models.truncate import truncate
from tests.pretraining import words, write_places
from tests.tiny import WORDS, write_bert
from tests.training import assert_same, left_behind, only, run


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    return write_places(tmp_path_factory.mktemp("pretrain"))


def log_of(folder):
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("preset, terms", [("distilbert", {"mlm", "kl", "cos"}), ("minilmv2", {"relation"}),
                                           ("tinybert_general", {"hidden", "attention"}), ("kdslm", {"mlm", "kl", "hidden"}),
                                           ("tinydistil", {"mlm", "kl", "cos"}), ("mlm", {"mlm"})])
def test_every_preset_learns_its_terms_and_leaves_a_model_and_curves(places, tmp_path, capsys, caplog, preset, terms):
    assert 0 == run(*words(places, tmp_path / "run", "--preset", preset, "--lr_scheduler_type", "constant", "--warmup_steps", "0", "--warmup_ratio", "0"))
    lines = [line for line in log_of(tmp_path / "run") if "terms" in line]
    scored = [line for line in log_of(tmp_path / "run") if "heldout" in line]
    assert {frozenset(line["terms"]) for line in lines} == {frozenset(terms)} == {frozenset(line["heldout"]) for line in scored}
    weights = lines[0]["weights"]
    before, after = (sum(weights[name] * line["heldout"][name] for name in terms) for line in (scored[0], scored[-1]))
    assert after < before, "twelve steps lower the loss on held-out documents"
    assert all(line["tokens_per_second"] > 0 and 0 < line["mfu"] < 1 and line["tokens"] > 0 for line in lines)
    kind = AutoModelForMaskedLM if terms & WORD_TERMS else AutoModel
    student = kind.from_pretrained(tmp_path / "run/best")
    assert student.config.num_hidden_layers == 2 and student.config.architectures == [type(student).__name__]
    assert student(**AutoTokenizer.from_pretrained(tmp_path / "run/best")("the man", "ugly", return_tensors="pt"))[0].isfinite().all()
    found = json.loads((tmp_path / "run/scores.json").read_text())
    assert set(found["terms"]) == terms and ("heldout/accuracy" in found["values"]) == bool(terms & WORD_TERMS)
    assert (student.config.type_vocab_size == 1) == (preset in ("distilbert", "mlm"))
    assert (tmp_path / "run/curves.png").read_bytes()[:4] == b"\x89PNG"
    assert run("report", "folder", tmp_path) == 1 and "it answers no task, it was pre-trained" in caplog.text + capsys.readouterr().err


def test_a_head_alone_is_trained_and_the_encoder_stays_as_it_was(places, tmp_path):
    assert 0 == run(*words(places, tmp_path / "run", "--preset", "head", "--student", places / "bare", "--learning_rate", "1e-2", "--eval_on_start", True))
    made, bare = masked_lm(str(tmp_path / "run/best")), masked_lm(str(places / "bare"), fresh_head=True)
    assert all(torch.equal(one, other) for one, other in zip(made.backbone.parameters(), bare.backbone.parameters(), strict=True))
    losses = [line["heldout"]["mlm"] for line in log_of(tmp_path / "run") if "heldout" in line]
    assert losses[-1] < losses[0] - 0.02
    assert 0 == run(*words(places, tmp_path / "student", "--teacher", str(tmp_path / "run/best"), "--max_steps", "1"))  # now it can teach


def test_an_encoder_without_a_head_teaches_what_is_not_read_from_one_and_its_student_no_words_either(places, tmp_path, capsys):
    assert 0 == run(*words(places, tmp_path / "run", "--preset", "minilmv2", "--warmup_steps", 0, "--teacher", places / "bare"))
    scores = json.loads((tmp_path / "run/scores.json").read_text())
    assert scores["values"] == {} and set(scores["terms"]) == {"relation"}
    assert f"relation {scores['terms']['relation']:.4g}" in capsys.readouterr().out
    assert 1 == run(*words(places, tmp_path / "student", "--teacher", tmp_path / "run/best", "--student", "all"))
    assert "is not a masked language model" in capsys.readouterr().err


def test_what_no_term_reads_is_not_trained_nor_decayed(places, tmp_path):
    """Relations of the last layer read its queries, keys and values."""
    assert 0 == run(*words(places, tmp_path / "run", "--preset", "minilmv2", "--warmup_ratio", 0, "--weight_decay", 0.5, "--eval_on_start", True))
    last, taught = (AutoModel.from_pretrained(folder).encoder.layer[-1] for folder in (tmp_path / "run/best", places / "teacher"))
    assert torch.equal(last.output.dense.weight, taught.output.dense.weight)
    assert not torch.equal(last.attention.self.query.weight, taught.attention.self.query.weight)


def test_a_few_steps_are_said_to_be_few(places, tmp_path, caplog):
    assert 0 == run(*words(places, tmp_path / "run", "--max_steps", 2, "--warmup_steps", 2))
    assert "2 steps of 8 rows are few" in caplog.text and "--warmup_steps 2 of 2 steps: the learning rate never falls" in caplog.text


@pytest.mark.parametrize("layout", ["blocks", "packed", "padded"])
def test_a_run_that_was_stopped_ends_as_one_that_was_not(places, tmp_path, layout):
    more = ["--layout", layout, "--save_steps", "5", "--relation_weight", "1", "--attention_weight", "0.1"]
    assert run(*words(places, tmp_path / "whole", *more)) == 0
    with pytest.MonkeyPatch.context() as patch:
        only(TextStream, 7, patch)
        assert run(*words(places, tmp_path / "stopped", *more)) == 130
    assert run(*words(places, tmp_path / "stopped", *more)) == 0
    assert_same(left_behind(tmp_path / "whole"), left_behind(tmp_path / "stopped"))


def test_runs_that_mask_otherwise_are_judged_by_the_same_masks(places, tmp_path):
    for name, more in (("one", []), ("other", ["--mlm_probability", 0.4, "--mlm_smoothing", 0])):
        assert run(*words(places, tmp_path / name, "--max_steps", 1, "--eval_on_start", True, *more)) == 0
    one, other = (log_of(tmp_path / name) for name in ("one", "other"))
    assert one[0]["heldout"] == other[0]["heldout"] and one[1]["terms"] != other[1]["terms"]


def parts(places, layout="padded", length=24, **changed):
    """Objective, student and a batch, without dropout."""
    cfg = parse(pretrain.Config, words(places, "nowhere", "--layout", layout)[3:], {**pretrain.PRESET_DEFAULTS["distilbert"], **changed})
    teacher = masked_lm(cfg.teacher)
    student = truncate(teacher, (1, 3)).eval()
    corpus = Corpus.open(places / "corpus")
    tokenizer = student.tokenizer
    masking = Masking(tokenizer.all_special_ids, tokenizer.mask_token_id, len(tokenizer), None, 0.15, 0.0)
    batch = TextStream(corpus, corpus.split()[0], layout, length, 6, 3, masking).next()
    return cfg, teacher, student, corpus, masking, batch


def every_term(student, teacher, kl_on="tokens", cos_on="tokens"):
    pairs = ((0, 0), (1, 2), (2, 4))
    return [(MaskedWords(), 2.0), (SoftWords(kl_on, 2.0), 5.0), (Directions(pairs[2:], student, teacher, cos_on == "cls"), 1.0),
            (HiddenStates(pairs, student, teacher), 1.0), (AttentionScores(pairs, student, teacher), 1.0),
            (Relations((2, 4), 8, student, teacher), 1.0)]


def objective_of(cfg, student, teacher, *places):
    objective = Pretraining(NoTeacher(), every_term(student, teacher, *places), student, teacher)
    objective.teacher = LiveTeacher(teacher, cfg, objective.wanted)
    return objective


PLACES = pytest.mark.parametrize("kl_on, cos_on", [("tokens", "tokens"), ("masked", "cls")])


@PLACES
def test_padding_changes_no_term(places, kl_on, cos_on):
    cfg, teacher, student, *_, batch = parts(places, bf16=False)
    objective = objective_of(cfg, student, teacher, kl_on, cos_on)
    wider = type(batch)(batch.task, batch.uid, *(torch.nn.functional.pad(tensor, (0, 5), value=fill) for tensor, fill in (
        (batch.input_ids, 0), (batch.attention_mask, 0), (batch.token_type_ids, 0), (batch.target, IGNORED))))
    one, other = objective(student, batch, 0.0), objective(student, wider, 0.0)
    assert objective.counts(batch) == objective.counts(wider)
    for name in one:
        torch.testing.assert_close(one[name], other[name], rtol=1e-5, atol=1e-4)


@PLACES
def test_pieces_that_share_a_row_have_the_loss_that_they_have_alone(places, kl_on, cos_on):
    cfg, teacher, student, corpus, *_ = parts(places, bf16=False)
    objective = objective_of(cfg, student, teacher, kl_on, cos_on)
    documents = corpus.split()[0]

    class Seldom(Masking):
        """Masks nothing: which tokens are drawn depends on the rows."""

        def apply(self, ids, real, generator):
            return ids, np.where(real & ~self.special[ids] & (ids % 5 == 0), ids, IGNORED)

    tokenizer = student.tokenizer
    seldom = Seldom(tokenizer.all_special_ids, tokenizer.mask_token_id, len(tokenizer))
    totals = []
    for layout in ("padded", "packed"):
        batches = fixed_batches(corpus, documents, layout, 40, seldom, 0, 4096)
        sums, counts = {}, {}
        for index in range(len(batches)):
            for name, value in objective(student, batches[index], 0.0).items():
                sums[name] = sums.get(name, 0.0) + value.item()
            for name, count in objective.counts(batches[index]).items():
                counts[name] = counts.get(name, 0) + count
        totals.append((sums, counts))
    assert totals[0][1] == totals[1][1]
    assert totals[0][0] == pytest.approx(totals[1][0], rel=1e-4)


def test_a_student_that_is_its_teacher_loses_nothing_but_the_masked_words(places):
    cfg, teacher, _, *_, batch = parts(places, bf16=False)
    objective = Pretraining(NoTeacher(), [(SoftWords("masked", 2.0), 5.0), (Directions(((4, 4),), teacher, teacher, True), 1.0),
                                       (HiddenStates(((2, 2),), teacher, teacher), 1.0)], teacher, teacher)
    objective.teacher = LiveTeacher(teacher, cfg, objective.wanted)
    assert all(abs(float(value)) < 1e-3 for value in objective(teacher.eval(), batch, 0.0).values())


def test_terms_are_counted_by_masked_tokens_tokens_heads_and_rows(places):
    cfg, teacher, student, *_, batch = parts(places)
    objective = objective_of(cfg, student, teacher)
    assert objective.counts(batch) == {"mlm": batch.masked, "kl": batch.tokens, "cos": batch.tokens, "hidden": batch.tokens,
                                       "attention": 2 * batch.tokens, "relation": 8 * batch.tokens}
    assert SoftWords("masked", 1.0).count(batch) == batch.masked
    assert Directions(((2, 4),), student, teacher, True).count(batch) == len(batch) == 6


def test_operations_are_those_that_torch_counts(places):
    from torch.utils.flop_counter import FlopCounterMode

    cfg, teacher, student, corpus, masking, batch = parts(places, layout="blocks", bf16=False)
    batch = batch.select([row for row, size in enumerate(batch.sizes) if size == 24])  # nothing is padded
    objective = Pretraining(NoTeacher(), [(MaskedWords(), 1.0), (SoftWords("tokens", 2.0), 1.0)], student, teacher)
    objective.teacher = LiveTeacher(teacher, cfg, objective.wanted)
    student.train()
    with FlopCounterMode(display=False) as counter:
        sum(objective(student, batch, 0.0).values()).backward()
    assert objective.flops(batch) == pytest.approx(counter.get_total_flops(), rel=0.15)


def test_held_out_scores_do_not_depend_on_the_size_of_batches(places):
    cfg, teacher, student, corpus, masking, _ = parts(places, bf16=False)
    objective, held = objective_of(cfg, student, teacher), corpus.split()[0][:20]
    with torch.no_grad():
        few, many = (Validation(objective, fixed_batches(corpus, held, "padded", 24, masking, 0, size), cfg)(student) for size in (100, 4096))
    assert few.values == many.values and few.terms == pytest.approx(many.terms, rel=1e-4) and few.counts == many.counts


@torch.no_grad()
def test_a_teachers_layers_lie_in_bfloat16_and_give_what_autocast_made_of_them(places):
    cfg, teacher, student, *_, batch = parts(places, bf16=True)
    wanted = objective_of(cfg, student, teacher).wanted
    found, where = [], batch.attention_mask.bool()
    for source in (truncate(teacher, (0, 1, 2, 3)), cast_products(truncate(teacher, (0, 1, 2, 3)), cfg, workers.device())):
        outputs = LiveTeacher(source, cfg, wanted)(batch)
        with autocast(cfg, workers.device()):
            found.append((*outputs.hidden, *outputs.projections[4], outputs.words.features(where)))
    assert {module.weight.dtype for module in source.modules() if isinstance(module, torch.nn.Linear)} == {torch.bfloat16}
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))
    kept = {name for name, tensor in source.named_parameters() if tensor.dtype == torch.float32}
    assert all("embeddings" in name or "norm" in name.lower() or name == "head.bias" for name in kept) and kept


@torch.no_grad()
def test_the_words_found_are_those_with_the_highest_scores(places):
    cfg, teacher, _, corpus, masking, _ = parts(places, bf16=False)
    teacher.eval().head.bias[:] = 0.0
    teacher.head.bias[20] = 50.0  # always its first choice
    objective = Pretraining(NoTeacher(), [(MaskedWords(), 1.0)], teacher, None)
    batches = fixed_batches(corpus, corpus.split()[0], "padded", 24, masking, 0, 256)
    wanted = torch.cat([batch.target[batch.target != IGNORED] for batch in batches])
    found = Validation(objective, batches, cfg)(teacher)
    share, count = float((wanted == 20).float().mean()), len(wanted)
    assert found.values == {"heldout/accuracy": pytest.approx(share)} and found.counts == {"heldout/accuracy": count} and share > 0
    assert found.errors["heldout/accuracy"] == pytest.approx((share * (1 - share) / count) ** 0.5)
    assert found.selection == pytest.approx(-found.terms["mlm"])


@torch.no_grad()
def test_how_many_masked_words_the_teacher_finds_is_said_once(places, caplog):
    cfg, teacher, student, corpus, masking, _ = parts(places, bf16=False)
    teacher.head.bias[20] = 50.0  # always its first choice
    batches = fixed_batches(corpus, corpus.split()[0], "padded", 24, masking, 0, 256)
    wanted = torch.cat([batch.target[batch.target != IGNORED] for batch in batches])
    validation = Validation(objective_of(cfg, student, teacher), batches, cfg)
    with caplog.at_level(logging.INFO):
        found, again = validation(student), validation(student)
    (line,) = (record.message for record in caplog.records if "the teacher finds" in record.message)
    assert f"the teacher finds {100 * (wanted == 20).float().mean():.1f} %" in line and found == again
    assert f"the student {100 * found.values['heldout/accuracy']:.1f} %" in line


def test_fresh_weights_are_of_the_same_shape_and_not_the_teachers(places):
    cfg, teacher, *_ = parts(places, random_init=True)
    torch.manual_seed(0)
    student = pretrain.build_student(cfg, teacher)
    assert student.depth == 2 and not torch.equal(student.backbone.get_input_embeddings().weight, teacher.backbone.get_input_embeddings().weight)


@pytest.mark.parametrize("more, said", [
    (["--teacher", "BARE"], "is not a masked language model"),
    (["--teacher", "BARE", "--preset", "minilmv2", "--mlm_weight", "1", "--mlm_probability", "0.1"], "is not a masked language model"),
    (["--preset", "minilmv2", "--mlm_weight", "1"], "--mlm_probability 0: nothing is masked"),
    (["--corpus", "nowhere"], "data pack"),
    (["--max_length", "200"], "the model has 128 positions"),
    (["--mlm_weight", "0", "--kl_weight", "0", "--cos_weight", "0"], "expected one above 0"),
    (["--layout", "rows"], "--layout rows"), (["--kl_on", "all"], "--kl_on all"), (["--cos_on", "all"], "--cos_on all"),
    (["--mlm_probability", "1"], "--mlm_probability 1"), (["--freeze_backbone", "True", "--mlm_weight", "0"], "--freeze_backbone"),
    (["--trim_vocabulary", "True"], "--trim_vocabulary"), (["--layer_map", "1:9"], "--layer_map 1:9")])
def test_what_does_not_fit_is_refused_before_anything_is_written(places, tmp_path, capsys, more, said):
    more = [str(places / "bare") if word == "BARE" else word for word in more]
    assert run(*words(places, tmp_path / "run", *more)) == 1
    assert said in capsys.readouterr().err
    assert not list(tmp_path.rglob("*.safetensors"))


def test_packed_rows_are_refused_where_a_convolution_would_mix_their_pieces(places):
    for layout, said in (("padded", nullcontext()), ("packed", pytest.raises(ValueError, match="--layout packed: .*conv_kernel_size 3.*--layout padded or blocks"))):
        cfg, teacher, _, corpus, *_ = parts(places, layout)
        teacher.config.conv_kernel_size = 3
        with said:
            pretrain.check_fit(cfg, corpus, [teacher])


def test_tasks_and_other_vocabularies_are_refused(places, tmp_path, capsys):
    write_bert(tmp_path / "other", words=WORDS[::-1])
    for command, said in ((["train", "pretrain", "CoLA"], "pretrain reads text, not CoLA"),
                          (words(places, tmp_path / "run", "--student", str(tmp_path / "other"), "--random_init", "True"), "another vocabulary")):
        assert run(*command) == 1
        assert said in capsys.readouterr().err
