"""Which arithmetic a run uses."""

import contextlib
from collections.abc import Iterator
from typing import TypeVar

import torch
from torch import nn

Module = TypeVar("Module", bound=nn.Module)


def native_bf16(device: torch.device) -> bool:
    """Whether the device multiplies bfloat16 natively (elsewhere it is emulated, and slow)."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()


def uses_bf16(cfg, device: torch.device) -> bool:
    """The setting bf16, its default resolved for the device."""
    return native_bf16(device) and not cfg.fp16 if cfg.bf16 is None else cfg.bf16


def check_precision(cfg, device: torch.device) -> None:
    """ValueError for what the device cannot do."""
    if cfg.fp16 and device.type != "cuda":
        raise ValueError("--fp16 needs a CUDA device, and none is here: use --bf16 or neither")


def product_dtype(cfg, device: torch.device) -> torch.dtype:
    """What cfg.bf16 / cfg.fp16 multiply in on this device."""
    return torch.float16 if cfg.fp16 else torch.bfloat16 if uses_bf16(cfg, device) else torch.float32


def autocast(cfg, device: torch.device):
    """The autocast context of product_dtype() on this device; a no-op in float32."""
    dtype = product_dtype(cfg, device)
    return contextlib.nullcontext() if dtype is torch.float32 else torch.autocast(device.type, dtype)


@contextlib.contextmanager
def tensor_cores(device: torch.device) -> Iterator[None]:
    """Within it, float32 products on CUDA read their factors to 10 bits and add up in float32 (TF32, for which it has fast units);
    other devices multiply as ever."""
    usual = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high" if device.type == "cuda" else usual)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(usual)


def cast_products(frozen: Module, cfg, device: torch.device) -> Module:
    """`frozen`, its linear layers in place in the type that autocast gives them at every pass: the same outputs from half the memory.
    Embeddings and norms, which autocast leaves alone, keep theirs. For nothing that is trained, saved, or run without autocast."""
    for module in frozen.modules():
        if isinstance(module, nn.Linear):
            module.to(product_dtype(cfg, device))
    return frozen
