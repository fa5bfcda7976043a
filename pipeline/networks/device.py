"""Where a network runs, and in which precision."""

from __future__ import annotations

import torch

from ..errors import UserError


def choose_device(name: str, where: str, turn: int = 0) -> torch.device:
    """The device of a config value.

    Args:
        name: `auto`, `cpu`, `cuda` or `cuda:1`.
        where: dotted config path, for messages.
        turn: processes that are numbered get the GPUs in turn with `auto`.

    Raises:
        UserError: there is no such device.
    """
    if name == "auto":
        if not torch.cuda.is_available():
            return torch.device("cpu")
        return torch.device("cuda", turn % torch.cuda.device_count())
    try:
        device = torch.device(name)
    except RuntimeError:
        device = torch.device("meta")
    if device.type not in ("cpu", "cuda"):
        raise UserError(f"{name!r} is no device; use auto, cpu, cuda or cuda:1", where)
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UserError(f"{name} is not available here ({torch.cuda.device_count()} GPUs); use auto or cpu", where)
    return device


def choose_autocast(name: str, device: torch.device) -> torch.dtype | None:
    """The reduced precision of a config value, or None for float32.

    `auto` takes what the device has in hardware: emulated bfloat16 is tens of times slower than float32.
    """
    if name == "off":
        return None
    if name != "auto":
        return torch.bfloat16 if name == "bfloat16" else torch.float16
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
    return torch.bfloat16 if _cpu_has_bfloat16() else None


def _cpu_has_bfloat16() -> bool:
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
