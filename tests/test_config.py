"""Every setting has an effect that can be seen, or is refused with its name; who wins between defaults, presets and words."""

import dataclasses
import hashlib
import json
import math
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from data_utils.tasks import get_task
from distill import config as config_module
from distill import distillation, engine, recipes
from distill.__main__ import main
from distill.config import TaskConfig, TrainConfig, differences, digest, parse
from distill.distillation import DistilConfig
from distill.recipes import finetune, mpdistil, pkd, pretrain, relation_kd, self_teaching, sense_kd, tinybert
from distill.rundir import RunDir
from distill.senses.build import SenseConfig, build
from distill.senses.dictionary import SenseDictionary
from distill.verbs.bench import BenchConfig
from distill.verbs.senses import build_senses
from distill.verbs.train import preset_settings
from models.checkpoint import load_encoder
from models.encoder import Encoder
from tests import pretraining, tiny
from tests.effects import BESIDE, ENGINE, FINETUNE, MPDISTIL, OWN, PRETRAIN, SELF_TEACHING, SENSE_KD, SENSES

TASK = "CoLA"
SMALL = {"bf16": False, "max_steps": 2, "train_batch_size": 8, "learning_rate": 1e-3, "logging_steps": 1}

CLASSES = {"finetune": (finetune.Config, FINETUNE), "self_teaching": (self_teaching.Config, SELF_TEACHING),
           "sense_kd": (sense_kd.Config, SENSE_KD), "senses": (SenseConfig, SENSES), "mpdistil": (mpdistil.Config, MPDISTIL),
           "pretrain": (pretrain.Config, PRETRAIN),
           **{kind: (recipes.load(kind).Config, effects) for kind, effects in OWN.items()}}


def settings_of(kind: str) -> set[str]:
    """The settings of a class that its table is to name."""
    base = DistilConfig if kind in OWN else {"mpdistil": TaskConfig, "pretrain": TrainConfig}.get(kind)
    shared = {field.name for field in dataclasses.fields(base)} if base else set()
    return {field.name for field in dataclasses.fields(CLASSES[kind][0])} - shared | ({"output_dir"} if kind == "mpdistil" else set())


CASES = [(kind, name) for kind in CLASSES for name in sorted(settings_of(kind))]


@pytest.fixture(scope="module")
def places(tiny_bert, tiny_deberta, tiny_glue, tmp_path_factory) -> dict[str, str]:
    """Folders that settings name: tasks, two teachers and their senses."""
    root = tmp_path_factory.mktemp("places")
    other = tiny.write_glue(root / "other", rows=40)
    for file in (other / TASK / "train.tsv", other / TASK / "dev.tsv"):
        file.write_text(re.sub(r"\bthe\b", "a", file.read_text()))
    found = {"tiny glue": tiny_glue, "other glue": other, "bert": tiny_bert, "deberta": tiny_deberta, "shared cache": root / "cache"}
    for name, seed in (("teacher", 1), ("other teacher", 2)):
        cfg = finetune.Config(**SMALL, model=str(tiny_bert), data_dir=str(tiny_glue), seed=seed, output_dir=str(root / name))
        finetune.run(cfg, get_task(TASK), RunDir(cfg.output_dir))
        found[name] = root / name / "best"
    for name, seed in (("", 0), ("other ", 1)):
        text = pretraining.write_places(root / f"{name}text", seed=seed)
        found |= {f"{name}corpus": text / "corpus", f"{name}masked teacher": text / "teacher"}
    for name, number in (("senses", 3), ("other senses", 2)):
        found[f"these {name}"] = root / name
        cfg = SenseConfig(teacher=str(found["teacher"]), data_dir=str(tiny_glue), num_senses=number, bf16=False, output_dir=str(root / name))
        build(cfg, get_task(TASK), load_encoder(cfg.teacher), RunDir(cfg.output_dir), {"similarity": "distance"})  # not saying whose
    return {name: str(path) for name, path in found.items()}


def observe(kind: str, places: dict, out: Path, monkeypatch, **changed) -> dict:
    """Run with the settings `changed`; what there is to see of it."""
    config_class, _ = CLASSES[kind]
    given = {"output_dir": str(out), "bf16": False} | ({"data_dir": places["tiny glue"]} if kind != "pretrain" else {})
    pretrained = {**SMALL, "model": places["bert"]}
    given |= {"finetune": pretrained, "self_teaching": pretrained, "senses": {"teacher": places["teacher"], "num_senses": 3},
              "sense_kd": {**SMALL, "teacher": places["teacher"], "senses": places["these senses"], "relation_heads": 8},
              "pretrain": {**SMALL, "corpus": places["corpus"], "teacher": places["masked teacher"], "student": "layers:1,3", "max_length": 24,
                           "relation_heads": 8},
              "mpdistil": {"model": places["bert"], "train_batch_size": 8, "learning_rate": 1e-3, "num_train_epochs": 1.0, "teacher_epochs": 1.0,
                           "teacher_learning_rate": 1e-3, "num_episodes": 4, "episode_batch_size": 2, "meta_epochs": 2.0, "logging_steps": 1,
                           "temperature": 2.0},
              "relation_kd": {**SMALL, "teacher": places["teacher"], "relation_heads": 8}}.get(
                  kind, {**SMALL, "teacher": places["teacher"]})
    cfg = config_class(**{**given, **changed})
    passes, saves, compiled = [], [], []
    encode, save = Encoder.encode, engine.save_last
    monkeypatch.setattr(Encoder, "encode", lambda self, batch: passes.append(batch.input_ids.shape) or encode(self, batch))
    monkeypatch.setattr(engine, "save_last", lambda run, run_dir, keep: saves.append(run.step) or save(run, run_dir, keep))
    monkeypatch.setattr(Encoder, "compile", lambda self, **how: compiled.append(how))
    if kind == "senses":
        build_senses(TASK, cfg)
    else:
        recipes.load(kind).run(cfg, get_task("text" if kind == "pretrain" else TASK), RunDir(cfg.output_dir))
    monkeypatch.undo()
    path = Path(cfg.output_dir)
    weights = path / ("senses.safetensors" if kind == "senses" else "last/model.safetensors")
    if kind == "senses":
        dictionary = SenseDictionary.load(path)
        states = torch.randn(200, dictionary.centroids.shape[1], generator=torch.Generator().manual_seed(0))
        types = torch.arange(len(dictionary.sizes))[dictionary.sizes > 1].repeat(200)[:200]
        seen = {"weights": dictionary.centroids.numpy().tobytes(), "chosen": dictionary.lookup().nearest(states, types).tolist()}
    else:
        log = [json.loads(line) for line in (path / "log.jsonl").read_text().splitlines()]
        seen = {"weights": hashlib.sha256(weights.read_bytes()).hexdigest(),
                "log": [{name: value for name, value in line.items() if name not in tiny.TIMES} for line in log]}
    return {**seen, "passes": passes, "saves": saves, "compiled": compiled, "path": path, "cache": (path / "cache").exists(),
            "stages": sorted(folder.name for folder in path.glob("stage-*")),
            "kept": sorted(folder.name for folder in path.glob("last*"))}


@pytest.fixture(scope="module")
def unchanged(places, tmp_path_factory) -> dict[str, dict]:
    """What there is to see with the settings as they are."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        return {kind: observe(kind, places, tmp_path_factory.mktemp("unchanged") / "run", monkeypatch) for kind in CLASSES}


def test_equal_settings_give_equal_runs(places, unchanged, tmp_path, monkeypatch):
    """Else every difference below would be worth nothing."""
    for kind, expected in unchanged.items():
        found = observe(kind, places, tmp_path / kind, monkeypatch)
        assert {name: found[name] for name in found if name != "path"} == {name: expected[name] for name in found if name != "path"}


@pytest.mark.parametrize("kind, name", CASES)
def test_every_setting_has_an_effect(kind, name, places, unchanged, tmp_path, monkeypatch):
    config_class, effects = CLASSES[kind]
    assert name in effects, f"a new setting: say in {kind}'s table in effects.py what it changes"
    value, aspect = effects[name]
    value = str(tmp_path / "elsewhere") if value == "elsewhere" else places.get(value, value)
    assert value != getattr(config_class(), name)
    beside = {other: places.get(setting, setting) for other, setting in BESIDE.get(name, {}).items()}
    if aspect == "refused":
        with pytest.raises(ValueError, match=f"--{name}"):
            observe(kind, places, tmp_path / "run", monkeypatch, **{name: value})
        return
    base = observe(kind, places, tmp_path / "base", monkeypatch, **beside) if beside else unchanged[kind]
    found = observe(kind, places, tmp_path / "run", monkeypatch, **beside, **{name: value})
    assert found[aspect] != base[aspect], f"--{name} {value} changes nothing"


def test_the_tables_name_no_setting_that_is_gone():
    assert set(ENGINE) == {field.name for field in dataclasses.fields(TrainConfig)}
    for kind, (_, effects) in CLASSES.items():
        assert set(effects) == settings_of(kind)
    assert CLASSES.keys() >= set(recipes.names()), "a new recipe: say there what its settings change"


@pytest.mark.parametrize("config_class", [TrainConfig, *(config for config, _ in CLASSES.values())])
def test_configs_are_frozen_and_every_setting_has_a_default_and_a_help_text(config_class):
    with pytest.raises(dataclasses.FrozenInstanceError):
        config_class().seed = 1
    for field in dataclasses.fields(config_class):
        assert field.default is not dataclasses.MISSING and field.metadata["help"]


@pytest.mark.parametrize("words", [["train", "finetune", "CoLA"], ["train", "sense_kd", "CoLA", "--preset", "paper"],
                                   ["senses", "build", "CoLA"]])
@pytest.mark.parametrize("flag, value, status", [("--caps", 1, 1), ("--see", 1, 1), ("--output_dir", "", 2), ("--seed", "many", 2)])
def test_an_unknown_flag_and_a_value_of_another_type_are_refused(words, flag, value, status, places, tmp_path, capsys, monkeypatch):
    """Never an abbreviation, never ignored; nothing has been written."""
    monkeypatch.chdir(tmp_path)
    model = {"finetune": ["--model", places["bert"]]}.get(words[1], [])
    try:
        found = main([*words, *model, flag, *([str(value)] if value else [])])
    except SystemExit as stop:
        found = stop.code
    assert found == status
    assert flag in capsys.readouterr().err and not list(tmp_path.iterdir())


def test_a_preset_lies_between_the_defaults_and_the_words():
    cfg = parse(finetune.Config, ["--learning_rate", "0.25"], {"learning_rate": 1.0, "warmup_steps": 50})
    assert (cfg.learning_rate, cfg.warmup_steps, cfg.weight_decay) == (0.25, 50, TrainConfig.weight_decay)
    cfg = parse(finetune.Config, ["--warmup_ratio=0.25"], {"warmup_steps": 50})
    assert (cfg.warmup_ratio, cfg.warmup_steps) == (0.25, 0)
    cfg = parse(sense_kd.Config, ["--weight_decay", "0.125"], preset_settings(sense_kd, "CoLA", "paper", []))
    assert (cfg.weight_decay, cfg.num_train_epochs, cfg.optimizer) == (0.125, 40, "ranger_adabelief")
    assert cfg.freeze_head is True and cfg.max_tokens == TrainConfig.max_tokens
    assert parse(sense_kd.Config, [], preset_settings(sense_kd, "MRPC", "paper", [])).num_train_epochs == 20


@pytest.mark.parametrize("recipe", [recipes.load(name) for name in recipes.names()])
def test_every_preset_sets_known_settings_to_values_that_are_accepted(recipe):
    assert recipe.PRESET_DEFAULTS.keys() == recipe.PER_TASK.keys()
    for preset, tasks in recipe.PER_TASK.items():
        for task in [*tasks, "WNLI"]:
            get_task(task)
            parse(recipe.Config, [], preset_settings(recipe, task, preset, []))


@pytest.mark.parametrize("width, preset", [(384, "small"), (767, "small"), (768, "base"), (1023, "base"), (1024, "paper")])
def test_fine_tuning_takes_the_preset_of_its_models_width(width, preset, monkeypatch):
    monkeypatch.setattr(finetune, "load_config", lambda name: type("Config", (), {"hidden_size": width}))
    assert finetune.default_preset({"model": "any"}) == preset


@pytest.mark.parametrize("width, preset, rate", [(384, "small", 1e-4), (768, "base", 2e-5), (1023, "base", 2e-5), (1024, "large", 1e-5)])
@pytest.mark.parametrize("recipe", ["logit_kd", "pkd", "tinybert", "relation_kd", "sense_kd"])
def test_distillation_takes_the_preset_of_its_teachers_width(recipe, width, preset, rate, monkeypatch):
    monkeypatch.setattr(distillation, "checkpoint_config", lambda name: type("Config", (), {"hidden_size": width}))
    recipe = recipes.load(recipe)
    assert recipe.default_preset({"teacher": "any"}) == preset
    assert preset_settings(recipe, "MRPC", preset, [])["learning_rate"] == rate


def test_the_published_settings_for_the_width_of_distilbert():
    """One schedule for all tasks of an encoder of that width."""
    names = ("learning_rate", "num_train_epochs", "train_batch_size")
    found = {task: parse(finetune.Config, [], preset_settings(finetune, task, "base", [])) for task in ("MNLI", "IMDb")}
    assert {task: tuple(getattr(cfg, name) for name in names) for task, cfg in found.items()} == {"MNLI": (2e-5, 3, 32), "IMDb": (2e-5, 2, 16)}
    assert preset_settings(finetune, "IMDb", "small", [])["num_train_epochs"] == 2


def test_an_unknown_preset_is_answered_with_the_list():
    with pytest.raises(ValueError, match="'big'.*paper"):
        preset_settings(finetune, "CoLA", "big", [])


BAD = [(TrainConfig, {"learning_rate": 0}), (TrainConfig, {"train_batch_size": 0}), (TrainConfig, {"max_tokens": -1}),
       (TrainConfig, {"logging_steps": 0}), (TrainConfig, {"max_steps": -1}), (TrainConfig, {"num_train_epochs": -1.0}), (TrainConfig, {"num_train_epochs": 0.0}),
       (TrainConfig, {"weight_decay": -0.1}), (TrainConfig, {"max_grad_norm": -1.0}), (TrainConfig, {"warmup_steps": -1}),
       (TrainConfig, {"eval_steps": -1}), (TrainConfig, {"save_steps": -1}), (TrainConfig, {"warmup_ratio": 1.0}),
       (TrainConfig, {"warmup_ratio": -0.1}), (TrainConfig, {"bf16": True, "fp16": True}), (TrainConfig, {"optimizer": "sgd"}),
       (TrainConfig, {"fsdp": True, "trim_vocabulary": True}), (TrainConfig, {"fsdp": True, "compile": True}),
       (TrainConfig, {"lr_scheduler_type": "step"}), (TrainConfig, {"seed": -1}),
       (finetune.Config, {"head_dropout": 1.5}), (finetune.Config, {"max_length": -1}),
       (finetune.Config, {"pooling": "max"}), (finetune.Config, {"stride": -1}), (finetune.Config, {"max_query_length": 0}), (sense_kd.Config, {"head_input": "both"}), (sense_kd.Config, {"temperature": 0.0}),
       (sense_kd.Config, {"sense_weight": -1.0}),
       (self_teaching.Config, {"kl_weight": 0.0, "student_ce_weight": 0.0}), (self_teaching.Config, {"student_ce_weight": -1.0}),
       (sense_kd.Config, {"kl_weight": -1.0}), (sense_kd.Config, {"max_length": -1}),
       (sense_kd.Config, {"ce_weight": 0.0, "sense_weight": 0.0, "kl_weight": 0.0}), (SenseConfig, {"num_senses": 0}),
       (sense_kd.Config, {"student": "layers:0", "student_layers": "truncate:1"}), (sense_kd.Config, {"max_cache_gib": -1.0}),
       (sense_kd.Config, {"sense_temperature": 0.0}),
       (pkd.Config, {"cls_weight": -1.0}), (pkd.Config, {"ce_weight": 0.0, "kl_weight": 0.0, "cls_weight": 0.0}),
       (tinybert.Config, {"intermediate_share": 0.0}), (tinybert.Config, {"intermediate_share": 1.0}),
       (tinybert.Config, {"hidden_weight": 0.0, "attention_weight": 0.0}), (tinybert.Config, {"ce_weight": 0.0, "kl_weight": 0.0}),
       (relation_kd.Config, {"teacher_layer": -1}),
       (SenseConfig, {"cap": 0}), (SenseConfig, {"cap": 10, "num_senses": 20}), (SenseConfig, {"max_length": 0}),
       (SenseConfig, {"restarts": 0}), (SenseConfig, {"max_tokens": -1}), (SenseConfig, {"seed": -1}),
       (SenseConfig, {"bf16": True, "fp16": True}), (SenseConfig, {"similarity": "cosine"}),
       (TrainConfig, {"learning_rate": math.nan}), (TrainConfig, {"learning_rate": math.inf}), (TrainConfig, {"weight_decay": math.nan}),
       (sense_kd.Config, {"kl_weight": math.nan}), (sense_kd.Config, {"relation_heads": 0}), (mpdistil.Config, {"head_dropout": 1.0}),
       (mpdistil.Config, {"pooling": "max"}), (mpdistil.Config, {"alpha": 1.5}), (mpdistil.Config, {"step_every": "epoch"}),
       (pretrain.Config, {"max_length": 4}), (pretrain.Config, {"cos_on": "all"}), (pretrain.Config, {"mlm_probability": 1.0}),
       (BenchConfig, {"steps": 1}), (BenchConfig, {"parts": "all"})]


@pytest.mark.parametrize("config_class, bad", BAD, ids=lambda value: str(value) if isinstance(value, dict) else value.__module__)
def test_a_bad_value_is_refused_by_the_name_of_its_flag(config_class, bad):
    with pytest.raises(ValueError) as found:
        config_class(**bad)
    assert all(f"--{name}" in str(found.value) for name in bad)


@pytest.mark.parametrize("config_class, words", [(finetune.Config, ["--layers", "first:2"]), (finetune.Config, ["--layers", "truncate:9"]),
                                                 (sense_kd.Config, ["--student", "truncate:9"]), (SenseConfig, ["--layer", "5"]),
                                                 (SenseConfig, ["--layer", "-6"])])
def test_a_value_that_does_not_fit_the_model_is_refused_in_one_line(config_class, words, places, tmp_path, capsys):
    verb = {finetune.Config: ["train", "finetune", TASK, "--model", places["bert"]], SenseConfig: ["senses", "build", TASK],
            sense_kd.Config: ["train", "sense_kd", TASK, "--senses", places["these senses"]]}[config_class]
    teacher = [] if config_class is finetune.Config else ["--teacher", places["teacher"]]
    assert main([*verb, *teacher, "--data_dir", places["tiny glue"], "--output_dir", str(tmp_path / "run"), *words]) == 1
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert said.startswith("error:") and words[1] in said


def test_a_digest_changes_with_any_setting():
    base = dataclasses.asdict(TrainConfig())
    assert digest(base) == digest(dict(reversed(base.items()))) and len(digest(base)) == 12
    changed = {digest({**base, name: value}) for name, (value, _) in ENGINE.items()}
    assert len(changed | {digest(base)}) == len(ENGINE) + 1


def test_differences_name_old_and_new_values():
    assert differences({"a": 1, "b": 2}, {"a": 1, "b": 3, "c": 4}) == ["b: 2 -> 3", "c: None -> 4"]


def test_a_preset_with_an_unknown_setting_is_our_mistake():
    with pytest.raises(AssertionError, match="learning_rat"):
        config_module.parse(TrainConfig, [], {"learning_rat": np.inf})


def test_help_is_given_without_a_look_at_the_model(capsys, monkeypatch):
    monkeypatch.setattr(finetune, "load_config", lambda name: pytest.fail("asked for the model"))
    with pytest.raises(SystemExit) as stop:
        main(["train", "finetune", "MRPC", "--help"])
    assert stop.value.code == 0 and "--learning_rate" in capsys.readouterr().out
    assert main(["train", "--help"]) == 0 and "sense_kd" in capsys.readouterr().out
