"""Where parameters lie: on the one process, a copy on every rank (DDP), or a part on every rank (FSDP2).

A sharded parameter is a DTensor, cut between rows. A layer's tensors are put together before it runs, forward and
backward, and dropped after it; their gradients are averaged over the ranks and cut in the same way:

    rank 0   w[0:3], its gradient, its optimiser state  ]
    rank 1   w[3:5], ...                                ]->  w  ->  the layer  ->  dw  ->  mean over ranks, cut

So each pass through a sharded module is a collective: every rank must make as many. Files hold whole tensors.
"""

import contextlib
from collections.abc import Iterator

import torch
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.nn.parallel import DistributedDataParallel

from distill import workers
from models.layers import layer_stack
from models.trunk import Trunk


class Alone:
    """What one process trains: the module itself. Call it in the module's place."""

    def __init__(self, module: nn.Module):
        self.run = module.to(workers.device())

    def __call__(self, *inputs):
        return self.run(*inputs)

    def exchange(self, wanted: bool) -> contextlib.AbstractContextManager:
        """The context of a backward pass: whether it brings the gradients of all ranks together. A step's last one must."""
        return contextlib.nullcontext()

    def assembled(self) -> contextlib.AbstractContextManager:
        """The context of what reads parameters around the student without a pass through the module: an evaluation, by the objective."""
        return contextlib.nullcontext()


class Replicated(Alone):
    """A copy on every rank, gradients averaged."""

    def __init__(self, module: nn.Module):
        super().__init__(module)
        self.run = DistributedDataParallel(self.run, forward_sync_buffers=False,  # buffers are constants here
                                           gradient_as_bucket_view=True)

    def exchange(self, wanted: bool) -> contextlib.AbstractContextManager:
        return contextlib.nullcontext() if wanted else self.run.no_sync()


class Sharded(Alone):
    """A part on every rank, gradients averaged. Until they are exchanged, each rank holds its own ones whole."""

    def __init__(self, module: nn.Module):
        shard(module.student, module)
        fully_shard.state(module)._lazy_init()  # else the first to run is the root: the student, evaluated before a step
        self.run = module

    def exchange(self, wanted: bool) -> contextlib.AbstractContextManager:
        self.run.set_requires_gradient_sync(wanted)
        return contextlib.nullcontext()

    @contextlib.contextmanager
    def assembled(self) -> Iterator[None]:
        self.run.unshard()
        try:
            yield
        finally:
            self.run.reshard()


def parallelise(module: nn.Module, fsdp: bool) -> Alone:
    """What to call in the place of `module`, whose `student` is a Trunk. Sharding replaces its parameters: an optimiser
    is to be built after it."""
    kind = Sharded if fsdp else Replicated if workers.world() > 1 else Alone
    return kind(module)


def is_sharded(module: nn.Module) -> bool:
    """Whether every rank holds a part of `module`, so that a pass through it is one of all ranks."""
    return any(isinstance(parameter, DTensor) for parameter in module.parameters())


def placed(encoder: Trunk, fsdp: bool) -> Trunk:
    """A frozen `encoder`, in place: sharded, or whole on this process's device."""
    return shard(encoder) if fsdp else encoder.to(workers.device())


def shard(encoder: Trunk, *around: nn.Module) -> Trunk:
    """Shard `encoder` layer by layer, in place, then the modules `around` it; parameters move to the device as they are cut.

    The encoder may be called by itself, as evaluation does: what it needs outside its layers goes with it.
    """
    if workers.world() == 1:
        raise ValueError("--fsdp: this is one process, there is nothing to shard over; start it with "
                         "`torchrun --nproc_per_node N -m distill ...`, or omit --fsdp")
    mesh = init_device_mesh(workers.device().type, (workers.world(),))
    owner, name = layer_stack(encoder.backbone)
    for module in getattr(owner, name):
        fully_shard(module, mesh=mesh, reshard_after_forward=True)
    for module in (encoder, *around):  # embeddings and heads: losses over a vocabulary read them after the pass
        fully_shard(module, mesh=mesh, reshard_after_forward=False)
    return encoder


def full_tensor(tensor: torch.Tensor) -> torch.Tensor:
    """`tensor`, put together where it is sharded; then every rank must ask."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def full_state_dict(state):
    """A state dict with every sharded tensor whole, on the CPU of rank 0 (None elsewhere). Every rank must ask."""
    if isinstance(state, dict):
        return {name: full_state_dict(value) for name, value in state.items()}
    if isinstance(state, DTensor):
        tensor = full_tensor(state)
        return tensor.cpu() if workers.is_main() else None
    return state


def shard_state(state: dict, optimizer: torch.optim.Optimizer) -> dict:
    """An optimiser's whole state dict, cut as the parameters of `optimizer` are."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]

    def like(value, parameter: torch.Tensor):
        if not isinstance(parameter, DTensor) or getattr(value, "shape", None) != parameter.shape:
            return value  # not sharded, or a number of steps
        part = distribute_tensor(value, parameter.device_mesh, parameter.placements, src_data_rank=None)
        return part.clone()  # else a view that keeps the whole tensor

    return {**state, "state": {index: {name: like(value, parameters[index]) for name, value in entries.items()}
                               for index, entries in state["state"].items()}}
