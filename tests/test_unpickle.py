import pickle
import warnings
from collections import OrderedDict

import numpy as np
import pytest
import torch

import models.unpickle
from models.unpickle import load_pickle, read_kmeanspkl, read_state_dict, write_kmeanspkl
from tests.published_formats import Hostile, write_senses


def dump(path, content, protocol=4):
    path.write_bytes(pickle.dumps(content, protocol=protocol))
    return path


def refusal(call, *arguments):
    """The message of the ValueError that `call` raises, which is one line and begins with the path."""
    with pytest.raises(ValueError) as caught:
        call(*arguments)
    message = str(caught.value)
    assert message.startswith(f"{arguments[0]}: ") and "\n" not in message
    return message


class Call:
    """Pickles as function(*arguments)."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


# ---- sense dictionaries


def test_a_published_dictionary_gives_every_sense_and_leaves_out_what_means_none(tmp_path):
    written = write_senses(tmp_path / "MRPC.kmeanspkl", vocab=60, width=8, seed=0)
    with open(tmp_path / "MRPC.kmeanspkl", "rb") as stream:
        assert len(pickle.load(stream)) == len(written) + 5  # None, two empty tensors, two [0]
    senses = read_kmeanspkl(tmp_path / "MRPC.kmeanspkl")
    assert senses.keys() == written.keys()
    assert all(senses[token].dtype == torch.float16 and torch.equal(senses[token], written[token]) for token in written)


@pytest.mark.parametrize("protocol", [2, 4, 5])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_numpy_ids_and_arrays_are_read_in_every_pickle_protocol(tmp_path, protocol, dtype):
    array = np.arange(6, dtype=dtype).reshape(2, 3)
    path = dump(tmp_path / "a.kmeanspkl", {np.int64(7): array, np.int32(8): np.asfortranarray(array)}, protocol)
    senses = read_kmeanspkl(path)
    assert all(type(token) is int for token in senses)
    assert torch.equal(senses[7], torch.from_numpy(array)) and torch.equal(senses[8], torch.from_numpy(array))


def test_tensors_that_share_memory_in_the_file_do_not_share_it_afterwards(tmp_path):
    table = torch.arange(12.0).reshape(4, 3).half()
    senses = read_kmeanspkl(dump(tmp_path / "a.kmeanspkl", {1: table[:2], 2: table[2:], 3: table.T[:, :3]}))
    assert torch.equal(senses[2], table[2:]) and torch.equal(senses[3], table.T[:, :3])
    assert all(value.untyped_storage().nbytes() == value.numel() * 2 and value.is_contiguous() for value in senses.values())


@pytest.mark.parametrize("content, words", [
    ([1, 2], "holds list"),
    ({"ban": torch.ones(1, 2)}, "'ban' is not a token id"),
    ({-1: torch.ones(1, 2)}, "-1 is not a token id"),
    ({2**40: torch.ones(1, 2)}, "1099511627776 is not a token id"),
    ({1: torch.ones(1, 2), 2: torch.ones(1, 3)}, "different widths [2, 3]"),
    ({1: torch.ones(2)}, "token 1 has torch.float32 [2]"),
    ({1: torch.ones(1, 2, 2)}, "token 1 has torch.float32 [1, 2, 2]"),
    ({1: torch.ones(1, 2, dtype=torch.long)}, "token 1 has torch.int64 [1, 2]"),
    ({1: [1.0, 2.0]}, "token 1 has a list"),
    ({1: torch.tensor([[float("nan"), 1.0]])}, "token 1 has senses that are not finite"),
    ({1: None}, "no token type has senses"),
    ({}, "no token type has senses"),
])
def test_what_is_no_dictionary_is_refused_with_its_reason(tmp_path, content, words):
    assert words in refusal(read_kmeanspkl, dump(tmp_path / "a.kmeanspkl", content))


def test_a_written_dictionary_is_what_the_published_programs_load(tmp_path):
    table = torch.randn(1000, 16)
    write_kmeanspkl(tmp_path / "a.kmeanspkl", {5: table[3:5], np.int64(2): table[:1]})
    with open(tmp_path / "a.kmeanspkl", "rb") as stream:
        loaded = pickle.load(stream)  # as they do
    assert list(loaded) == [2, 5] and all(type(token) is int for token in loaded)
    assert all(type(value) is torch.Tensor and value.dtype == torch.float16 for value in loaded.values())
    assert torch.equal(loaded[5], table[3:5].half())
    assert (tmp_path / "a.kmeanspkl").stat().st_size < 4000, "a view took the whole table along"
    assert torch.equal(read_kmeanspkl(tmp_path / "a.kmeanspkl")[2], table[:1].half())


@pytest.mark.parametrize("senses", [{}, {1: torch.full((1, 2), 1e5)}, {1: torch.ones(1, 2), 2: torch.ones(1, 3)}, {1: torch.zeros(0, 2)}])
def test_a_dictionary_that_could_not_be_read_again_is_not_written(tmp_path, senses):
    path = tmp_path / "a.kmeanspkl"
    write_kmeanspkl(path, {1: torch.ones(1, 2)})
    before = path.read_bytes()
    refusal(write_kmeanspkl, path, senses)
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


# ---- nothing is executed


@pytest.mark.parametrize("protocol", [0, 2, 4])
@pytest.mark.parametrize("wrap", [lambda bad: bad, lambda bad: {1: bad}, lambda bad: {1: torch.ones(1, 2), bad: None}])
def test_a_call_hidden_in_a_dictionary_is_named_and_not_run(tmp_path, protocol, wrap):
    marker = tmp_path / "ran"
    path = dump(tmp_path / "a.kmeanspkl", wrap(Hostile(marker)), protocol)
    assert "posix.system" in refusal(read_kmeanspkl, path)
    assert not marker.exists()


@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize("zipped", [True, False])
def test_a_call_hidden_in_the_data_of_one_tensor_is_named_and_not_run(tmp_path, zipped, protocol):
    marker, inner = tmp_path / "ran", tmp_path / "inner"
    with open(inner, "wb") as stream:
        torch.save(Hostile(marker), stream, pickle_protocol=protocol, _use_new_zipfile_serialization=zipped)
    path = dump(tmp_path / "a.kmeanspkl", {1: Call(torch.storage._load_from_bytes, inner.read_bytes())})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch remarks on protocol 4
        assert "posix.system" in refusal(read_kmeanspkl, path)
    assert not marker.exists()


@pytest.mark.parametrize("name", ["builtins eval", "builtins getattr", "torch load", "torch.serialization load", "numpy load", "torch.hub load",
                                  "numpy.core.multiarray fromfile", "functools partial", "models.unpickle _load_weights_only",
                                  "torch.storage _load_from_bytes.__globals__", "numpy ndarray.tofile", "torch._utils _rebuild_tensor_v3"])
def test_every_global_off_the_list_is_named(tmp_path, name):
    path = tmp_path / "a.kmeanspkl"
    path.write_bytes(b"c" + name.replace(" ", "\n").encode() + b"\n.")
    assert name.replace(" ", ".") in refusal(load_pickle, path)
    path.write_bytes(pickle.PROTO + b"\x04" + b"".join(b"\x8c" + bytes([len(part)]) + part.encode() for part in name.split()) + b"\x93.")
    assert name.replace(" ", ".") in refusal(load_pickle, path)


def test_a_pickle_that_redefines_what_it_may_call_changes_nothing_for_the_next(tmp_path):
    path = tmp_path / "a.kmeanspkl"
    path.write_bytes(b"ctorch._utils\n_rebuild_tensor_v2\n(N(dV__name__\nVredefined\nsV__defaults__\n(Vx\ntstb.")
    before = models.unpickle._tensor.__name__, models.unpickle._tensor.__defaults__
    load_pickle(path)
    assert (models.unpickle._tensor.__name__, models.unpickle._tensor.__defaults__) == before
    assert torch.equal(load_pickle(dump(path, torch.ones(2))), torch.ones(2))


def test_a_tensor_that_is_given_another_state_is_refused(tmp_path):
    storage = torch.storage.TypedStorage(wrap_storage=torch.ones(4).untyped_storage(), dtype=torch.float32, _internal=True)
    good = pickle.dumps(Call(torch._utils._rebuild_tensor_v2, storage, 0, (4,), (1,), False, OrderedDict()), protocol=2)
    state = pickle.dumps((torch.ones(4), 0, (100,), (1,)), protocol=2)
    (tmp_path / "a").write_bytes(good[:-1] + state[2:-1] + b"b.")  # ... BUILD
    assert "a tensor's state" in refusal(load_pickle, tmp_path / "a")


def test_arrays_of_objects_and_of_foreign_byte_order_are_refused(tmp_path):
    assert "O8" in refusal(load_pickle, dump(tmp_path / "a", {1: np.array([[object]], dtype=object)}))
    assert "byte order" in refusal(load_pickle, dump(tmp_path / "a", {1: np.ones((1, 2), dtype=">f4")}))


@pytest.mark.parametrize("description", [(0, (100,), (1,)), (0, (100,), (0,)), (3, (2,), (1,)), (0, (2, 2), (3, 1)), (-1, (2,), (1,))])
def test_a_tensor_that_reaches_beyond_its_data_is_refused(tmp_path, description):
    storage = torch.storage.TypedStorage(wrap_storage=torch.ones(4).untyped_storage(), dtype=torch.float32, _internal=True)
    good = Call(torch._utils._rebuild_tensor_v2, storage, 1, (3,), (1,), False, OrderedDict())
    assert torch.equal(load_pickle(dump(tmp_path / "a", good)), torch.ones(3))
    refusal(load_pickle, dump(tmp_path / "a", Call(torch._utils._rebuild_tensor_v2, storage, *description, False, OrderedDict())))


# ---- damaged files


def test_a_dictionary_cut_anywhere_gives_one_clear_line(tmp_path):
    whole = dump(tmp_path / "whole", {1: torch.randn(3, 8).half(), 2: np.ones((2, 8))}).read_bytes()
    for length in [0, 1, 5, *range(10, len(whole), 37), len(whole) - 1]:
        (tmp_path / "cut").write_bytes(whole[:length])
        assert "download it again" in refusal(read_kmeanspkl, tmp_path / "cut")


@pytest.mark.parametrize("read", [read_kmeanspkl, load_pickle, read_state_dict])
def test_a_missing_file_or_a_folder_is_said_to_be_that(tmp_path, read):
    assert "no such file" in refusal(read, tmp_path / "absent")
    assert "a folder" in refusal(read, tmp_path)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_checkpoint_cut_anywhere_gives_one_clear_line(tmp_path, zipped):
    torch.save({"a": torch.ones(300), "b": torch.ones(2)}, tmp_path / "whole", _use_new_zipfile_serialization=zipped)
    whole = (tmp_path / "whole").read_bytes()
    for length in [0, 1, 100, len(whole) // 2, len(whole) - 30]:
        (tmp_path / "cut").write_bytes(whole[:length])
        assert "download it again" in refusal(read_state_dict, tmp_path / "cut")


def test_a_text_file_is_no_checkpoint_and_no_dictionary(tmp_path):
    (tmp_path / "page.html").write_text("<!DOCTYPE html><title>404</title>")
    assert "not a readable checkpoint" in refusal(read_state_dict, tmp_path / "page.html")
    assert "not a readable pickle" in refusal(read_kmeanspkl, tmp_path / "page.html")


# ---- state dicts


@pytest.mark.parametrize("container", [None, "state_dict", "model_state_dict", "model"])
@pytest.mark.parametrize("prefix", ["", "module."])
def test_containers_and_a_common_prefix_are_taken_off_and_floats_become_fp32(tmp_path, container, prefix):
    state = OrderedDict({f"{prefix}a": torch.ones(2).half(), f"{prefix}b": torch.ones(2).bfloat16(), f"{prefix}n": torch.tensor([3])})
    torch.save({container: state, "epoch": 3} if container else state, tmp_path / "x.bin")
    read = read_state_dict(tmp_path / "x.bin")
    assert {key: value.dtype for key, value in read.items()} == {"a": torch.float32, "b": torch.float32, "n": torch.int64}


def test_a_prefix_that_not_all_keys_have_stays(tmp_path):
    torch.save({"module.a": torch.ones(1), "b": torch.ones(1)}, tmp_path / "x.bin")
    assert list(read_state_dict(tmp_path / "x.bin")) == ["module.a", "b"]


@pytest.mark.parametrize("content, words", [
    ({"epoch": 3, "optimizer_state_dict": {}}, "epoch, optimizer_state_dict"),
    ({}, "an empty dict"),
    ([torch.ones(1)], "holds list"),
    ({1: torch.ones(1)}, "more than tensors: 1"),
])
def test_what_is_no_state_dict_is_refused_with_its_reason(tmp_path, content, words):
    torch.save(content, tmp_path / "x.bin")
    assert words in refusal(read_state_dict, tmp_path / "x.bin")


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("save", [
    torch.save,
    lambda content, path: torch.save(content, path, _use_new_zipfile_serialization=False),
    lambda content, path: torch.save(content, path, pickle_protocol=4),
    lambda content, path: dump(path, content, protocol=2),
    lambda content, path: dump(path, content, protocol=4),
], ids=["zip", "legacy", "zip protocol 4", "pickle protocol 2", "pickle protocol 4"])
def test_a_call_hidden_in_a_checkpoint_is_named_and_not_run(tmp_path, save):
    save({"a": torch.ones(1), "b": Hostile(tmp_path / "ran")}, tmp_path / "x.ckpt")
    message = refusal(read_state_dict, tmp_path / "x.ckpt")
    assert "posix.system" in message and "weights_only" not in message
    assert not (tmp_path / "ran").exists()
