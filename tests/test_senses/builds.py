"""Building small dictionaries."""

from pathlib import Path

from distill.__main__ import main
from distill.senses.dictionary import SenseDictionary

K = 4


def words(made: Path, out: Path, *more) -> list[str]:
    return [str(word) for word in ("senses", "build", "CoLA", "--teacher", made / "teacher/best", "--data_dir", made / "glue",
                                   "--output_dir", out, "--num_senses", K, "--max_tokens", 256, "--bf16", False, *more)]


def built(made: Path, out: Path, *more) -> SenseDictionary:
    assert main(words(made, out, *more)) == 0
    return SenseDictionary.load(out)
