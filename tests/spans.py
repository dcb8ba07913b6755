"""Small models that answer in a text, and how they read it."""

from pathlib import Path

from data_utils.encode import EncodedDataset
from data_utils.tasks import get_task
from data_utils.windows import Windows
from distill.evaluate import encode_split
from models.checkpoint import load_encoder
from models.encoder import Encoder
from tests.training import teach_superglue

CUT = ("--stride", 8, "--max_query_length", 8)
MADE = (("SQuAD", "bert"), ("SQuAD2", "bert"), ("TyDiQA", "bert"), ("SQuAD", "deberta"))


def teach_all(squad: Path, models: dict[str, Path], out: Path) -> dict[tuple[str, str], Path]:
    """Checkpoints of the tasks and models of MADE."""
    return {(task, model): teach_superglue(task, squad, models[model], out / f"{task}-{model}", "--learning_rate", 3e-3, "--head_dropout", 0.0,
                                           *CUT, *(("--max_length", 64) if model == "deberta" else ())) for task, model in MADE}


def dev(folder: Path, squad: Path, max_length: int = 0) -> tuple[Encoder, EncodedDataset]:
    """The encoder in a checkpoint folder, and SQuAD's dev set as it reads it."""
    encoder = load_encoder(folder)
    return encoder, encode_split(encoder, get_task("SQuAD"), "dev", str(squad), max_length, Windows(8, 8))
