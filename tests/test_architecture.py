"""The shape of the code: who imports whom, sizes, one training loop, safe loading. Read from the syntax trees."""

import ast
import functools
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("data_utils", "models", "distill")
HEAVY = {"datasets", "matplotlib", "onnx", "onnxruntime", "onnxscript", "sacrebleu"}
FILES = sorted(path.relative_to(ROOT) for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
PYTHON_FILES = FILES + sorted(path.relative_to(ROOT) for path in (ROOT / "tests").rglob("*.py"))
ALL_FILES = FILES + sorted(path.relative_to(ROOT) for folder in ("tests", "scripts") for path in (ROOT / folder).rglob("*")
                           if path.suffix in (".py", ".sh"))


@functools.cache
def tree(file: Path) -> ast.Module:
    return ast.parse((ROOT / file).read_text(encoding="utf-8"))


def imports(file: Path, nodes=None) -> set[str]:
    """Dotted names of what a file imports: `from a import b` counts as a.b."""
    found = set()
    for node in nodes or ast.walk(tree(file)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = list(file.parent.parts[:len(file.parent.parts) + 1 - node.level]) if node.level else []
            base += [node.module] if node.module else []
            found |= {".".join([*base, alias.name]) for alias in node.names}
    return found


def load_time(nodes):
    """The statements that run when a module is imported: everything outside functions."""
    for node in nodes:
        yield node
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            yield from load_time(ast.iter_child_nodes(node))


def calls(file: Path, name: str) -> list[ast.Call]:
    """The calls of `something.name(...)` or `name(...)`."""
    return [node for node in ast.walk(tree(file)) if isinstance(node, ast.Call)
            and name in (getattr(node.func, "attr", None), getattr(node.func, "id", None))]


def test_there_are_files_to_look_at():
    assert len(FILES) > 30 and Path("distill/engine.py") in FILES and Path("tests/test_architecture.py") in ALL_FILES


@pytest.mark.parametrize("package", ["models", "data_utils"])
def test_models_and_data_utils_import_neither_each_other_nor_distill(package):
    others = set(PACKAGES) - {package}
    wrong = {str(file): sorted(name for name in imports(file) if name.split(".")[0] in others)
             for file in FILES if file.parts[0] == package}
    assert not {file: names for file, names in wrong.items() if names}


def test_only_the_command_line_the_measurements_and_recipes_import_recipes():
    users = {("distill", "verbs"), ("distill", "bench"), ("distill", "recipes")}
    wrong = [str(file) for file in FILES if file.parts[:2] not in users
             and any(name == "distill.recipes" or name.startswith("distill.recipes.") for name in imports(file))]
    assert not wrong


def test_the_core_imports_no_verb():
    wrong = [str(file) for file in FILES if file.parts[:2] != ("distill", "verbs")
             and any(name.startswith("distill.verbs") for name in imports(file))]
    assert not wrong, "a verb is found by name, in __main__"


def test_nothing_outside_the_tests_imports_the_tests():
    assert not [str(file) for file in FILES if any(name.split(".")[0] == "tests" for name in imports(file))]


def test_no_file_imports_a_star():
    assert not [str(file) for file in PYTHON_FILES if any(name.endswith(".*") for name in imports(file))]


def test_a_file_has_at_most_300_lines():
    lines = {str(file): len((ROOT / file).read_text(encoding="utf-8").splitlines()) for file in ALL_FILES}
    assert not {file: count for file, count in lines.items() if count > 300}


def test_a_function_has_at_most_60_lines():
    lines = {f"{file}:{node.lineno} {node.name}": node.end_lineno - node.lineno + 1 for file in FILES
             for node in ast.walk(tree(file)) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}
    assert not {place: count for place, count in lines.items() if count > 60}


PRODUCT = [file for file in FILES if file.parts[:2] != ("distill", "bench")]  # what measures it also runs its rivals


def test_there_is_one_training_loop():
    assert [str(file) for file in PRODUCT if calls(file, "backward")] == ["distill/engine.py"]
    assert len(calls(Path("distill/engine.py"), "backward")) == 1
    assert [str(file) for file in FILES if calls(file, "clip_grads_with_norm_")] == ["distill/optim.py"]
    spreaders = [str(file) for file in FILES if calls(file, "DistributedDataParallel") or calls(file, "fully_shard")]
    assert spreaders == ["distill/sharding.py"]


def test_heavy_packages_are_imported_where_they_are_used():
    at_import = {str(file): {name.split(".")[0] for name in imports(file, list(load_time(tree(file).body)))} for file in FILES}
    assert not {file: names & HEAVY for file, names in at_import.items() if names & HEAVY}


def test_torch_load_reads_weights_only():
    for file in PYTHON_FILES:
        assert "torch.load" not in imports(file), f"{file}: write torch.load out, so that it can be found"
        for call in calls(file, "load"):
            if ast.unparse(call.func) == "torch.load":
                given = {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}
                assert given.get("weights_only") == "True", f"{file}:{call.lineno}"


def test_pickle_is_read_by_the_restricted_unpickler_alone():
    readers = {str(file) for file in FILES if any(ast.unparse(call.func) in ("pickle.load", "pickle.loads", "pickle.Unpickler")
                                                  for name in ("load", "loads", "Unpickler") for call in calls(file, name))}
    assert readers <= {"models/unpickle.py"}


def test_library_trainers_are_not_used():
    assert not [str(file) for file in PRODUCT if {"transformers.Trainer", "transformers.Seq2SeqTrainer"} & imports(file)]


def test_the_data_verb_which_every_script_asks_first_starts_without_heavy_packages():
    code = ("import sys; from distill.__main__ import main; status = main(['data', 'name', 'cola']); "
            "sys.exit(status or sorted({'torch', 'transformers', 'sklearn', 'scipy'} & sys.modules.keys()) or 0)")
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert (done.stdout, done.returncode) == ("CoLA\n", 0), done.stderr


def test_reports_load_no_model():
    code = "import sys, distill.verbs.report; sys.exit(sorted({'distill.evaluate', 'models.encoder', 'models.checkpoint'} & sys.modules.keys()) or 0)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
