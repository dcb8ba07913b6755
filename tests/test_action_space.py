"""The tasks of a curriculum (distill/action_space.py)."""

from data_utils.tasks import get_task
from distill.action_space import FOUND, other_tasks


def test_tasks_that_are_not_named_are_those_of_the_published_tables_that_are_there(tmp_path, caplog):
    for file in ("COPA/train.jsonl", "wic/train.jsonl", "WSC/train.jsonl", "MultiRC/train.jsonl", "MRPC/train.tsv", "STS-B/train.tsv", "RTE/train.tsv",
                 "BoolQ/val.jsonl", "QNLI/dev.tsv"):
        (tmp_path / file).parent.mkdir()
        (tmp_path / file).touch()
    found = {task: [other.name for other in other_tasks(get_task(task), FOUND, str(tmp_path))] for task in ("COPA", "MRPC", "CoLA", "RTE")}
    assert found == {"COPA": ["RTE", "WiC", "WSC"], "MRPC": ["RTE", "STS-B"], "CoLA": ["MRPC", "RTE", "STS-B"], "RTE": ["COPA", "WiC", "WSC"]}
    assert "held.tsv" not in caplog.text
    (tmp_path / "wic" / "held.tsv").touch()
    other_tasks(get_task("COPA"), FOUND, str(tmp_path))
    assert f"{tmp_path}/wic/held.tsv is not read: the quiz is a tenth of each class of train" in caplog.text
