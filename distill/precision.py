"""Which arithmetic a run uses."""

import contextlib

import torch


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
        raise ValueError("--fp16 needs a CUDA device, and none is here: use --bf16 or leave both away")


def autocast(cfg, device: torch.device):
    """The autocast context of cfg.bf16 / cfg.fp16 on this device; a no-op in float32."""
    if cfg.fp16:
        return torch.autocast(device.type, torch.float16)
    if uses_bf16(cfg, device):
        return torch.autocast(device.type, torch.bfloat16)
    return contextlib.nullcontext()
