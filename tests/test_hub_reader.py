"""Splits of the Hub: labels by name, what is refused, and what is said where it cannot be reached."""
import io
import socket
import time

import pytest

from data_utils.readers import data_fingerprint, read_examples
from data_utils.readers import hub as hub_reader
from data_utils.tasks import Example, get_task


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """Serves what the test puts into it as datasets.load_dataset would; (config, split) -> Dataset."""
    datasets = pytest.importorskip("datasets")
    served = {}
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(datasets, "load_dataset", lambda name, config, split: served[name, config, split])

    def serve(config, split, columns, label):
        features = datasets.Features({name: label if name == "label" else datasets.Value("string") for name in columns})
        served["nyu-mll/glue", config, split] = datasets.Dataset.from_dict(columns, features=features)
    return serve, datasets, tmp_path


def test_hub_labels_are_mapped_by_name_when_the_hub_counts_classes_differently(hub):
    serve, datasets, folder = hub
    serve("mnli", "validation_matched", {"premise": ["a", "b", "c"], "hypothesis": ["d", "e", "f"], "label": [0, 1, 2]},
          datasets.ClassLabel(names=["contradiction", "entailment", "neutral"]))
    assert read_examples(get_task("mnli"), "dev_matched", folder) == [
        Example(0, ("a", "d"), 2), Example(1, ("b", "e"), 0), Example(2, ("c", "f"), 1)]
    assert data_fingerprint(get_task("mnli"), "dev_matched", folder) == data_fingerprint(get_task("mnli"), "dev_matched", folder)


def test_true_labels_in_a_hub_test_split_are_ignored(hub):
    serve, datasets, folder = hub
    serve("mrpc", "test", {"sentence1": ["a"], "sentence2": ["b"], "label": [1]}, datasets.ClassLabel(names=["not_equivalent", "equivalent"]))
    assert read_examples(get_task("mrpc"), "test", folder) == [Example(0, ("a", "b"), None)]


def test_hub_scores_are_read_and_unlabelled_or_unknown_classes_refused(hub):
    serve, datasets, folder = hub
    serve("stsb", "validation", {"sentence1": ["a"], "sentence2": ["b"], "label": [3.5]}, datasets.Value("float32"))
    assert read_examples(get_task("stsb"), "dev", folder) == [Example(0, ("a", "b"), 3.5)]
    serve("rte", "validation", {"sentence1": ["a"], "sentence2": ["b"], "label": [-1]}, datasets.ClassLabel(names=["entailment", "not_entailment"]))
    with pytest.raises(ValueError, match=r"nyu-mll/glue/rte validation row 0: expected a label among .* found '-1'"):
        read_examples(get_task("rte"), "dev", folder)
    serve("rte", "train", {"sentence1": ["a"], "sentence2": ["b"], "label": [0]}, datasets.ClassLabel(names=["LABEL_0", "LABEL_1"]))
    with pytest.raises(ValueError, match="found 'LABEL_0'"):
        read_examples(get_task("rte"), "train", folder)
    serve("rte", "train", {"sentence1": ["a"], "sentence2": ["b"], "label": [0]}, datasets.Value("int64"))
    with pytest.raises(ValueError, match="ClassLabel"):
        read_examples(get_task("rte"), "train", folder)


def test_a_folder_on_disk_keeps_the_hub_out_even_where_its_file_is_missing(hub):
    _, _, folder = hub
    (folder / "RTE").mkdir()
    with pytest.raises(ValueError, match=r"expected .*RTE/dev\.tsv"):
        read_examples(get_task("rte"), "dev", folder)


def test_an_unreachable_hub_is_answered_at_once_with_both_ways_on(tmp_path, monkeypatch):
    for name in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with socket.socket() as closed:      # a port on which nobody listens
        closed.bind(("127.0.0.1", 0))
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{closed.getsockname()[1]}")
        with pytest.raises(ValueError) as caught:
            read_examples(get_task("rte"), "dev", tmp_path)
    message = str(caught.value)
    for part in ("RTE dev", str(tmp_path), "nyu-mll/glue", "download_glue_data.py", "--tasks RTE", "DATA="):
        assert part in message
    assert "\n" not in message


@pytest.mark.parametrize("name, form", [("https_proxy", "http://{}"), ("https_proxy", "{}"), ("all_proxy", "http://{}")])
def test_the_hub_is_asked_through_the_proxies_that_its_client_takes(name, form, monkeypatch):
    for other in ("https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(other, raising=False)
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with socket.create_server(("127.0.0.1", 0)) as proxy:
        monkeypatch.setenv(name, form.format(f"127.0.0.1:{proxy.getsockname()[1]}"))
        assert hub_reader.answers()


def test_a_hanging_name_server_is_not_waited_for(monkeypatch):
    monkeypatch.setattr(hub_reader, "PATIENCE_SECONDS", 0.2)
    monkeypatch.setattr(hub_reader.socket, "create_connection", lambda *_, **options: time.sleep(5) or io.BytesIO())
    started = time.monotonic()
    assert not hub_reader.answers()
    assert time.monotonic() - started < 2


def test_offline_without_a_cache_names_the_reason_and_the_ways_on(tmp_path, monkeypatch):
    datasets = pytest.importorskip("datasets")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(hub_reader, "answers", lambda: pytest.fail("offline mode must not touch the network"))

    def no_cache(*arguments, **options):
        raise ConnectionError("Couldn't reach the Hub\nlong trace")
    monkeypatch.setattr(datasets, "load_dataset", no_cache)
    with pytest.raises(ValueError, match="ConnectionError: Couldn't reach the Hub\\); looked for RTE in .* DATA="):
        read_examples(get_task("rte"), "dev", tmp_path)
