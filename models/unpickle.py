"""Downloaded files that are pickles, read without running anything they ask for.

A pickle is a program: it may name any function of any module and call it. Two kinds of downloads are pickles, and both are
read here with a short list of what they may name; everything else is refused, by name, before anything of it runs:

- sense dictionaries (`.kmeanspkl`): plain `pickle.dump` of {token id: tensor}; read_kmeanspkl, write_kmeanspkl, load_pickle
- state dicts (`.bin`, `.ckpt`): `torch.save`; read_state_dict

Errors are ValueError and begin with the path.
"""

import io
import math
import os
import pickle
import re
import warnings
import zipfile
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

_NUMBER_CODES = ("f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8")
_CONTAINERS = ("state_dict", "model_state_dict", "model")
_DICTIONARY = "{token id: tensor [senses, width]}"
_MOST_TYPES = 2**24  # tokens of a vocabulary: tables have a line for each up to the largest id
_DAMAGED = "the file is damaged, cut short, or something else; download it again"


class _Refused(Exception):
    """The file asks for the global of this name, which is not on the list."""


# What a sense dictionary may name. Stand-ins, not the originals: `torch.storage._load_from_bytes` loads without weights_only,
# and the `__setstate__` of numpy's dtype takes sizes and flags from the file.


class _Tensor(torch.Tensor):
    """Cannot be given another state, by which the opcode BUILD would enlarge its storage."""

    def __setstate__(self, _state: object) -> None:
        raise _Refused("a tensor's state")


def _storage(data: bytes) -> torch.Tensor:
    """What `_load_from_bytes` is asked for, as a flat tensor."""
    storage = _load_weights_only(io.BytesIO(data))
    if not isinstance(storage, torch.storage.TypedStorage):
        raise ValueError(f"a tensor's data is a {type(storage).__name__}, expected a storage")
    return torch.empty(0, dtype=storage.dtype).set_(storage).as_subclass(_Tensor)


def _tensor(flat: torch.Tensor, offset: int, size: tuple, stride: tuple, *_gradient_and_hooks: object) -> torch.Tensor:
    if math.prod(size) > flat.numel():
        raise ValueError(f"a tensor of size {size} in a storage of {flat.numel()} values")
    return flat.as_strided(size, stride, offset)  # checks the bounds; the original would enlarge a storage that is too small


class _DType:
    """Stands for numpy.dtype: plain little-endian numbers only."""

    __slots__ = ("dtype",)

    def __init__(self, code: str, *_align_copy: object) -> None:
        if code not in _NUMBER_CODES:
            raise _Refused(f"numpy.dtype({code!r})")
        self.dtype = np.dtype(code).newbyteorder("<")

    def __setstate__(self, state: tuple) -> None:
        if state[1] not in ("<", "|", "="):
            raise _Refused(f"numpy.dtype with byte order {state[1]!r}")


class _Array(np.ndarray):
    """A numpy array whose dtype in the file is a `_DType`."""

    def __setstate__(self, state: tuple) -> None:
        version, shape, dtype, fortran_order, data = state
        super().__setstate__((version, shape, dtype.dtype, fortran_order, bytes(data)))


def _latin1(text: str, encoding: str) -> bytes:
    if encoding != "latin1":
        raise _Refused(f"_codecs.encode to {encoding!r}")
    return text.encode("latin1")


def _array_from_buffer(data: bytes, dtype: _DType, shape: tuple, order: str) -> np.ndarray:
    return np.frombuffer(bytes(data), dtype=dtype.dtype).reshape(shape, order=order)


_ALLOWED = {
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch.storage._load_from_bytes": _storage,
    "collections.OrderedDict": lambda *_hooks: OrderedDict(),
    "numpy.dtype": _DType,
    "numpy.ndarray": lambda: None,  # only ever an argument of _reconstruct
    "_codecs.encode": _latin1,
} | {
    f"numpy.{core}.{name}": function
    for core in ("core", "_core")  # numpy 1 and numpy 2
    for name, function in {
        "multiarray._reconstruct": lambda *_class_shape_code: np.ndarray.__new__(_Array, (0,), "b"),
        "multiarray.scalar": lambda dtype, data: np.frombuffer(data, dtype=dtype.dtype)[0].item(),
        "numeric._frombuffer": _array_from_buffer,
    }.items()
}


class _RestrictedUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        function = _ALLOWED.get(f"{module}.{name}")
        if function is None:
            raise _Refused(f"{module}.{name}")
        # A new function each time: the opcode BUILD may set attributes on what stands here, and they go with it.
        return lambda *arguments: function(*arguments)


class _Namer(pickle.Unpickler):
    """Runs nothing; stops at the first global outside torch, numpy and what they need."""

    def find_class(self, module: str, name: str) -> Any:
        if module.split(".")[0] not in ("torch", "collections", "numpy", "_codecs"):
            raise _Refused(f"{module}.{name}")
        return lambda *_arguments: None

    def persistent_load(self, _key: object) -> None:
        return None


# ---- reading


def existing_file(path: str | Path) -> Path:
    path = Path(path)
    if not path.is_file():
        found = "a folder" if path.is_dir() else "no such file"
        raise ValueError(f"{path}: {found}; expected a downloaded file; check the path")
    return path


def _refusal(path: Path, wanted: object) -> ValueError:
    return ValueError(f"{path}: refused: the file asks for {wanted}, which tensors and numbers do not need; "
                      "nothing in it was run; do not load it with other programs")


def _load_weights_only(source: Path | io.BytesIO) -> Any:
    """torch.load on the CPU without its advice to switch the protection off. Errors: _Refused; any, for a damaged file."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it asks users to report pickle protocols that it does not know
            return torch.load(source, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        named = re.search(r"GLOBAL (\S+)", str(error))  # torch names none in protocols above 2
        wanted = _foreign_global(source) or (named and named.group(1))
        if not wanted:
            raise ValueError("it holds more than tensors, or it is not a file of torch.save") from None
        raise _Refused(wanted) from None


def _foreign_global(source: Path | io.BytesIO) -> str | None:
    """The first global outside torch and numpy that a file of torch.save or a pickle asks for; None where there is none."""
    data = source.getvalue() if isinstance(source, io.BytesIO) else source.read_bytes()
    if zipfile.is_zipfile(io.BytesIO(data)):
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            data = b"".join(archive.read(name) for name in archive.namelist() if name.endswith("/data.pkl"))
    stream = io.BytesIO(data)
    try:
        while True:  # the older format of torch.save is several pickles in a row
            _Namer(stream).load()
    except _Refused as refused:
        return str(refused)
    except Exception:  # the end, or damaged
        return None


def load_pickle(path: str | Path) -> Any:
    """The object in a plain pickle of tensors, numpy arrays, numbers, strings and containers of them.

    Errors: ValueError for a missing or damaged file, and for one that asks for any other global (named); nothing in it runs."""
    path = existing_file(path)
    try:
        with path.open("rb") as stream:
            return _RestrictedUnpickler(stream).load()
    except _Refused as refused:
        raise _refusal(path, refused) from None
    except Exception as error:  # a damaged pickle can fail in any way
        raise ValueError(f"{path}: not a readable pickle ({_first_line(error)}); {_DAMAGED}") from error


def read_state_dict(path: str | Path) -> dict[str, torch.Tensor]:
    """The tensors of a `torch.save`d state dict, on the CPU, floats as fp32.

    A container ({"state_dict": ...}, {"model_state_dict": ...}, {"model": ...}) is opened and a `module.` before every key
    (what DistributedDataParallel adds) removed. Errors: ValueError as in `load_pickle`, and for all but a dict of tensors."""
    path = existing_file(path)
    try:
        loaded = _load_weights_only(path)
    except _Refused as refused:
        raise _refusal(path, refused) from None
    except Exception as error:  # a damaged file can fail in any way
        raise ValueError(f"{path}: not a readable checkpoint ({_first_line(error)}); {_DAMAGED}") from error
    for name in _CONTAINERS:
        if isinstance(loaded, Mapping) and isinstance(loaded.get(name), Mapping):
            loaded = loaded[name]
    if not isinstance(loaded, Mapping) or not loaded:
        empty = "" if loaded else "an empty "
        raise ValueError(f"{path}: holds {empty}{type(loaded).__name__}, expected a dict of tensors; give a model's checkpoint")
    foreign = [str(key) for key, value in loaded.items() if not isinstance(key, str) or not isinstance(value, torch.Tensor)]
    if foreign:
        raise ValueError(f"{path}: holds more than tensors: {', '.join(foreign[:8])}; expected a dict of tensors; "
                         "give a model's checkpoint")
    prefix = "module." if all(key.startswith("module.") for key in loaded) else ""
    return {key.removeprefix(prefix): value.float() if value.is_floating_point() else value for key, value in loaded.items()}


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0][:200]}".removesuffix(": ")


# ---- sense dictionaries


def read_kmeanspkl(path: str | Path) -> dict[int, torch.Tensor]:
    """The senses of a published dictionary: {token id: [senses, width]}, in the file's float type, each tensor its own memory.

    Types that the published programs read as "no entry" (None, empty, the 1-D tensor [0]) are left out.
    Errors: ValueError, as in `load_pickle`, and for ids, shapes, widths or values that no dictionary has."""
    loaded = load_pickle(path)
    if not isinstance(loaded, dict):
        raise ValueError(f"{path}: holds {type(loaded).__name__}, expected {_DICTIONARY}; give a .kmeanspkl file")
    senses: dict[int, torch.Tensor] = {}
    for token, value in loaded.items():
        if type(token) is not int or not 0 <= token < _MOST_TYPES:
            raise ValueError(f"{path}: entry {token!r} is not a token id; expected {_DICTIONARY}; give a .kmeanspkl file")
        entry = _entry(path, token, value)
        if entry is not None:
            senses[token] = entry
    if not senses:
        raise ValueError(f"{path}: no token type has senses; expected {_DICTIONARY}; build or download it again")
    widths = {entry.shape[1] for entry in senses.values()}
    if len(widths) > 1:
        raise ValueError(f"{path}: senses of different widths {sorted(widths)}; expected one; build or download it again")
    return senses


def _entry(path: str | Path, token: int, value: object) -> torch.Tensor | None:
    if value is None or (isinstance(value, (list, tuple)) and not value):
        return None
    if isinstance(value, np.ndarray):
        value = torch.from_numpy(np.array(value))
    if not isinstance(value, torch.Tensor):
        raise ValueError(f"{path}: token {token} has a {type(value).__name__}, expected {_DICTIONARY}")
    if value.numel() == 0 or (value.shape == (1,) and value.item() == 0):
        return None
    if value.dim() != 2 or not value.is_floating_point():
        raise ValueError(f"{path}: token {token} has {value.dtype} {list(value.shape)}, expected floats [senses, width]")
    if not torch.isfinite(value).all():
        raise ValueError(f"{path}: token {token} has senses that are not finite (fp16 ends at 65504); build them again")
    return value.as_subclass(torch.Tensor).clone(memory_format=torch.contiguous_format)


def write_kmeanspkl(path: str | Path, senses: Mapping[int, torch.Tensor]) -> None:
    """Write {token id: [senses, width]} as the published programs read it: a plain pickle of fp16 CPU tensors, ordered by id.

    The file appears whole or not at all. Errors: ValueError for all that `read_kmeanspkl` refuses, fp16 overflow included."""
    path = Path(path)
    halves = {}
    for token, value in sorted(senses.items()):
        # A copy: pickle writes a tensor's whole storage, and a view's storage is the array that it was cut from.
        half = _entry(path, int(token), value.detach().to("cpu", torch.float16))
        if half is None:
            raise ValueError(f"{path}: not written: token {token} has no senses; leave it out")
        halves[int(token)] = half
    if len({half.shape[1] for half in halves.values()}) != 1:
        raise ValueError(f"{path}: not written: {len(halves)} entries; expected at least one, all of one width")
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with temporary.open("wb") as stream:
            pickle.dump(halves, stream, protocol=4)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
