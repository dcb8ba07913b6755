"""The processes of a run: one, or as many as torchrun started. Ask here; nothing is stored."""

import os
import sys
from collections.abc import Callable
from datetime import timedelta
from typing import TypeVar

import numpy as np
import torch
import torch.distributed as dist

Value = TypeVar("Value")
PATIENCE = timedelta(hours=6)  # with what one rank does alone, such as tokenising a corpus; gloo notices a rank that dies at once, NCCL not
BATCH_TOKENS = {"cpu": 2048, "cuda": 16384}  # more do not stay in a CPU's caches


def start() -> None:
    """Join the process group that torchrun's environment describes; a single process needs none. ValueError where this machine has
    fewer GPUs than processes."""
    processes, gpus = int(os.environ.get("LOCAL_WORLD_SIZE", "1")), torch.cuda.device_count()
    if torch.cuda.is_available() and processes > gpus:
        raise ValueError(f"torchrun started {processes} processes on this machine, which has {gpus} GPU{'s' * (gpus > 1)}: expected one for "
                         f"each at most; give --nproc_per_node {gpus}")
    torch.backends.cuda.enable_cudnn_sdp(False)  # it plans anew for every shape; gradients that are no numbers: pytorch #196678
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 and not dist.is_initialized():
        own = torch.device("cuda", int(os.environ["LOCAL_RANK"])) if torch.cuda.is_available() else None
        if own:
            torch.cuda.set_device(own)
        dist.init_process_group("nccl" if own else "gloo", timeout=PATIENCE, device_id=own)


def stop() -> None:
    """Leave the process group, if any."""
    if dist.is_initialized():
        dist.destroy_process_group()


def abandon() -> None:
    """End this process at once, with status 1: a group that has lost a rank may wait for it for ever while it is taken down."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(1)


def rank() -> int:
    return dist.get_rank() if dist.is_initialized() else 0


def world() -> int:
    return dist.get_world_size() if dist.is_initialized() else 1


def one_machine() -> bool:
    """Whether all ranks run on this machine."""
    return world() == int(os.environ.get("LOCAL_WORLD_SIZE", world()))


def is_main() -> bool:
    return rank() == 0


def device() -> torch.device:
    """The accelerator of this process, the CPU where there is none."""
    return torch.device("cuda", torch.cuda.current_device()) if torch.cuda.is_available() else torch.device("cpu")


def batch_tokens() -> int:
    """Padded tokens that suit one pass of a model on this device."""
    return BATCH_TOKENS[device().type]


def where_it_fits(work: Callable[[np.ndarray], Value], rows: np.ndarray, sharded: bool) -> list[tuple[np.ndarray, Value]]:
    """(rows, work(rows)); where a GPU has no memory for all of them, of one half after the other. Not where `work` runs a model that is
    sharded: every pass is one of all ranks then."""
    try:
        return [(rows, work(rows))]
    except torch.OutOfMemoryError:
        if len(rows) == 1 or sharded:
            raise
    torch.cuda.empty_cache()  # here nothing holds what the failed pass had
    return [done for half in np.array_split(rows, 2) for done in where_it_fits(work, half, sharded)]


def failure(error: RuntimeError) -> str:
    """What to say of an `error` that is the machine's: another rank is gone, or memory is full. "" for any other."""
    if isinstance(error, torch.OutOfMemoryError):
        return (f"{str(error).partition(' GPU ')[0]} Close what else uses the GPU, or lower --max_tokens (of training steps and of senses "
                f"build, here {batch_tokens()} by default); with it the same command goes on from the last checkpoint")
    if dist.is_initialized() and (isinstance(error, dist.DistError) or "gloo" in str(error)):  # gloo's errors have no type of their own
        return ("another rank of this run is gone (killed, or out of memory?); what it last printed may say why. The same command goes "
                "on from the last checkpoint")
    return ""


class FailedElsewhere(RuntimeError):
    """Another rank failed and has said why; this one stops without a word."""


def on_main(action: Callable[[], None]) -> None:
    """Run `action` on rank 0 while the others wait. A user's mistake or a full disk there ends every rank: with the
    error on rank 0, with FailedElsewhere on the others."""
    failure = None
    if is_main():
        try:
            action()
        except (ValueError, OSError) as error:
            failure = error
    if any_rank(failure is not None):
        try:
            raise failure or FailedElsewhere("rank 0 failed")
        finally:
            del failure  # its traceback holds this frame: the cycle would keep files and locks open


def barrier() -> None:
    """Wait for every rank."""
    if dist.is_initialized():
        dist.barrier()


def gather(value: Value) -> list[Value]:
    """`value` of every rank, in rank order, on every rank."""
    if world() == 1:
        return [value]
    values = [None] * world()
    dist.all_gather_object(values, value)
    return values


def share(parts: list[Value]) -> list[Value]:
    """This rank's share of `parts`: every world-th. As long on every rank, since a pass through a sharded model is a
    collective: where parts are missing, the last one is done again, while the others do theirs."""
    return [parts[min(index, len(parts) - 1)] for index in range(rank(), -(-len(parts) // world()) * world(), world())]


def summed(tensor: torch.Tensor) -> torch.Tensor:
    """The sum of a tensor over the ranks."""
    found = tensor.detach().clone()
    if dist.is_initialized():
        dist.all_reduce(found)
    return found


def any_rank(flag: bool) -> bool:
    """Whether `flag` is true on some rank: the same answer everywhere."""
    return any(gather(flag))


def total(values: dict[str, float]) -> dict[str, float]:
    """Sums over the ranks; a key that a rank lacks counts as 0 there."""
    ranks = gather(values)
    return {name: sum(rank.get(name, 0.0) for rank in ranks) for name in sorted(set().union(*ranks))}
