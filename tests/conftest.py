"""Shared fixtures: tiny models and tiny tasks, made once per session; markers; the real data where it is."""

import os
import subprocess
import threading
from pathlib import Path

import pytest
import torch

from data_utils import download_glue_data
from distill.__main__ import main
from tests import tiny
from tests.server import Server
from tests.spans import teach_all
from tests.training import exact_arithmetic, prepare_processes, teach_superglue

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ["PYTHONFAULTHANDLER"] = "1"  # processes that tests start: one that crashes says where
SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"


def pytest_configure(config):
    for marker in ("slow: takes minutes; not in the default run", "gpu: needs a CUDA device",
                   "network: needs the hub", "realdata: reads ../shared/data where it is present"):
        config.addinivalue_line("markers", marker)
    config.addinivalue_line("filterwarnings", "ignore:Sparse CSR tensor support is in beta")


def pytest_collection_modifyitems(config, items):
    chosen = config.getoption("-m")
    for item in items:
        if "slow" in item.keywords and "slow" not in chosen:
            item.add_marker(pytest.mark.skip(reason="slow: run with -m slow"))
        if "gpu" in item.keywords and not torch.cuda.is_available():
            item.add_marker(pytest.mark.skip(reason="no CUDA device"))
        if "realdata" in item.keywords and not SHARED.is_dir():
            item.add_marker(pytest.mark.skip(reason=f"no {SHARED}"))
        if "network" in item.keywords and "network" not in chosen:
            item.add_marker(pytest.mark.skip(reason="network: run with -m network"))


@pytest.fixture(scope="session")
def shared() -> Path:
    return SHARED


@pytest.fixture(scope="session")
def tiny_bert(tmp_path_factory) -> Path:
    """Folder of a random 4-layer BERT, 32 wide, with a WordPiece vocabulary of tiny.WORDS."""
    return tiny.write_bert(tmp_path_factory.mktemp("models") / "tiny-bert")


@pytest.fixture(scope="session")
def tiny_deberta(tmp_path_factory) -> Path:
    """Folder of a random 4-layer DeBERTa-v2 (v3's settings), 64 wide, with a SentencePiece model trained here."""
    return tiny.write_deberta(tmp_path_factory.mktemp("models") / "tiny-deberta")


@pytest.fixture(scope="session")
def tiny_glue(tmp_path_factory) -> Path:
    """Folder with small CoLA, SST-2, MRPC and STS-B tasks whose labels can be learned."""
    return tiny.write_glue(tmp_path_factory.mktemp("glue"))


@pytest.fixture(scope="session")
def tiny_imdb(tmp_path_factory) -> Path:
    """Folder with a small aclImdb in it, whose labels can be learned."""
    return tiny.write_imdb(tmp_path_factory.mktemp("imdb"))


@pytest.fixture
def small_disk(tmp_path):
    """A folder on a file system of four megabytes."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", folder], capture_output=True).returncode:
        pytest.skip("mounting a small file system needs root")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


@pytest.fixture
def exact():
    """The CPU and one thread: what the promise of equal bits is about."""
    with exact_arithmetic():
        yield


@pytest.fixture(scope="session")
def processes():
    """Processes that start fast."""
    prepare_processes()


@pytest.fixture(scope="session")
def superglue(tmp_path_factory) -> Path:
    """Folder with small COPA, MultiRC, ReCoRD, WSC, RTE and AX-g."""
    return tiny.write_superglue(tmp_path_factory.mktemp("superglue"))


@pytest.fixture(scope="session")
def superglue_teachers(superglue, tiny_bert, tmp_path_factory) -> dict[str, Path]:
    """Checkpoints of a choice, a grouped, a candidate and a plain task."""
    out = tmp_path_factory.mktemp("superglue-teachers")
    return {task: teach_superglue(task, superglue, tiny_bert, out / task) for task in ("COPA", "MultiRC", "ReCoRD", "RTE")}


@pytest.fixture(scope="session")
def squad(tmp_path_factory) -> Path:
    """Folder with small SQuAD, SQuAD2 and TyDiQA."""
    return tiny.write_squad(tmp_path_factory.mktemp("squad"))


@pytest.fixture(scope="session")
def span_teachers(squad, tiny_bert, tiny_deberta, tmp_path_factory) -> dict[tuple[str, str], Path]:
    """Checkpoints that answer in a text, by task and model."""
    return teach_all(squad, {"bert": tiny_bert, "deberta": tiny_deberta}, tmp_path_factory.mktemp("span-teachers"))


@pytest.fixture
def server(monkeypatch):
    """A server on this machine that downloads may ask, without a pause between tries."""
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(download_glue_data.time, "sleep", lambda seconds: None)
    with Server() as running:
        thread = threading.Thread(target=running.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        yield running
        running.shutdown()


@pytest.fixture
def report(capsys, caplog):
    """Runs the verb: status, lines on stdout, and what went to the log or to stderr."""
    def run(*words) -> tuple[int, list[str], str]:
        capsys.readouterr(), caplog.clear()
        status = main(["report", *map(str, words)])
        said = capsys.readouterr()
        return status, said.out.splitlines(), "".join(f"{message}\n" for message in caplog.messages) + said.err

    return run
