"""A device `far` beside the CPU, made of it: what a machine without a GPU can find out about running on one.

A tensor that says it lies on `far` holds one that lies here. An operation on tensors of both devices raises, as CUDA's do; numpy()
of a far tensor does too. Kernels, precision and memory of a GPU are not imitated. Needs a process of its own, since torch takes a
device for good: `python -m tests.second_device FILE` runs the commands in FILE, one JSON list of words each, and says what they did.
"""

import json
import sys
from functools import partial
from pathlib import Path

import torch
from torch.overrides import TorchFunctionMode
from torch.utils import backend_registration
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing
from torch.utils._pytree import tree_leaves, tree_map

aten = torch.ops.aten
BETWEEN_DEVICES = {aten._to_copy.default, aten.copy_.default}
INDICES_FROM_THE_CPU = {aten.index.Tensor, aten.index_put.default, aten.index_put_.default, aten._index_put_impl_.default}
# autocast_mode.h of torch 2.13, as far as this project's functions go
LOWERED = {"linear", "matmul", "rmatmul", "mm", "bmm", "addmm", "baddbmm", "einsum", "scaled_dot_product_attention"}
RAISED = {"layer_norm", "softmax", "log_softmax", "cross_entropy_loss", "nll_loss", "kl_div", "mse_loss", "cosine_similarity", "sum", "cumsum", "norm",
          "vector_norm", "linalg_vector_norm", "logsumexp", "exp", "log", "log1p", "pow", "rpow", "square", "rsqrt", "reciprocal", "prod"}


class Backend(backend_registration._DummyBackendModule):
    """What torch asks of a device."""

    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.bfloat16]


backend_registration._setup_privateuseone_for_python_backend("far", Backend())
FAR = torch.device("far:0")
autocast_nothing = torch.library.Library("_", "IMPL")  # where no rule is written; Functions has those that are needed
autocast_nothing.fallback(torch.library.fallthrough_kernel, "AutocastPrivateUse1")


class Far(torch.Tensor):
    """On `far`, by its own account; `here` has the numbers."""

    __torch_function__ = torch._C._disabled_torch_function_impl
    is_cuda = True

    @staticmethod
    def __new__(cls, here: torch.Tensor):
        return torch.Tensor._make_wrapper_subclass(cls, here.shape, here.stride(), here.storage_offset(), dtype=here.dtype, device=FAR)

    def __init__(self, here: torch.Tensor):
        self.here = here

    def tolist(self):
        return self.here.tolist()

    def numpy(self, *, force: bool = False):
        if not force:
            raise TypeError("a tensor on far is no array: copy it to the CPU first")
        return self.here.detach().numpy()

    def __reduce_ex__(self, protocol: int):
        return self.here.__reduce_ex__(protocol)

    @classmethod
    def __torch_dispatch__(cls, operation, types, args=(), kwargs=None):
        return apply(operation, args, kwargs or {})


def apply(operation, args: tuple, kwargs: dict):
    """The operation on tensors of one device, or a copy between the two. RuntimeError for tensors of both."""
    tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
    far = [tensor for tensor in tensors if isinstance(tensor, Far)]
    if operation is aten._has_compatible_shallow_copy_type.default:
        return len(far) != 1
    check_devices(operation, args, tensors, far)
    device = kwargs.get("device")
    goes_far = isinstance(args[0], Far) if operation is aten.copy_.default else bool(far) if device is None else _is_far(device)
    inner = {**kwargs, "device": torch.device("cpu")} if _is_far(device) else kwargs
    result = operation(*tree_map(_here, args), **tree_map(_here, inner))
    if not goes_far:
        return result
    Device.operations += 1
    result = tree_map(lambda leaf: Far(leaf) if isinstance(leaf, torch.Tensor) else leaf, result)
    return return_and_correct_aliasing(operation, args, kwargs, result)


def check_devices(operation, args: tuple, tensors: list[torch.Tensor], far: list[Far]) -> None:
    """RuntimeError where CUDA would raise: single numbers, and indices into a far tensor, may come from the CPU."""
    near = [tensor for tensor in tensors if not isinstance(tensor, Far) and tensor.dim()]
    allowed = operation in BETWEEN_DEVICES or operation in INDICES_FROM_THE_CPU and isinstance(args[0], Far)
    if near and far and not allowed:
        raise RuntimeError(f"{operation}: expected all tensors on one device, found {[(*t.shape, t.device.type) for t in tensors]}")


def _is_far(device) -> bool:
    return device is not None and torch.device(device).type == "far"


def _here(leaf):
    return leaf.here if isinstance(leaf, Far) else leaf


class Functions(TorchFunctionMode):
    """What has to be done before torch's dispatch: tensors of literals, and autocast, whose rules for CUDA differ from the CPU's."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if function is torch.tensor and _is_far(kwargs.get("device")):
            return function(*args, **{**kwargs, "device": "cpu"}).to(FAR)
        if function in (torch.Tensor.__getitem__, torch.Tensor.__setitem__) and isinstance(args[1], list):
            args = (args[0], torch.tensor(args[1]), *args[2:])
        name = getattr(function, "__name__", "").strip("_")
        if torch.is_autocast_enabled("far") and name in LOWERED | RAISED:
            args, kwargs = tree_map(partial(_cast, torch.get_autocast_dtype("far") if name in LOWERED else torch.float32), (args, kwargs))
        return function(*args, **kwargs)


def _cast(wanted: torch.dtype, leaf):
    cast = isinstance(leaf, Far) and leaf.dtype in (torch.float32, torch.bfloat16, torch.float16) and leaf.dtype != wanted
    return leaf.to(wanted) if cast else leaf


class Device(TorchDispatchMode):
    """While it is entered, `far` can be used; `operations` counts those on it."""

    operations = 0

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        return apply(operation, args, kwargs or {})


def dense_scores(ctx, hidden_MD, centroids_ND, first_M1, sense_S):
    """SenseScores.forward without sparse tensors, which have no strides to imitate."""
    ctx.save_for_backward(centroids_ND, first_M1, sense_S)
    token_S = torch.repeat_interleave(torch.arange(len(hidden_MD), device=hidden_MD.device), first_M1[1:] - first_M1[:-1])
    return (hidden_MD[token_S] * centroids_ND[sense_S]).sum(-1)


def run(commands: list[list[str]]) -> None:
    """Each command with `far` as its device; a line for each: its status, and how many operations were done on `far`."""
    from distill import kmeans, pace, vocabulary_losses, workers
    from distill.__main__ import main
    from models.heads import SenseScores

    workers.device = lambda: FAR
    SenseScores.forward = staticmethod(dense_scores)
    for table, like in ((kmeans.GROUP_BYTES, "cuda"), (pace.SIDE, "cpu"), (workers.BATCH_TOKENS, "cpu"), (vocabulary_losses.NUMBERS, "cpu")):
        table["far"] = table[like]
    for words in commands:
        Device.operations = 0
        with Functions(), Device():
            status = main(words)
        print("status", status, "operations", Device.operations, *words[:3], flush=True)


if __name__ == "__main__":
    run([json.loads(line) for line in Path(sys.argv[1]).read_text().splitlines()])
