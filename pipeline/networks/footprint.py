"""How much memory a network needs at its peak, found out without computing anything."""

from __future__ import annotations

import copy
import weakref
from collections.abc import Sequence
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from .base import EmbeddingNetwork


def peak_bytes(network: EmbeddingNetwork, shape: Sequence[int]) -> int:
    """Bytes of all tensors that live at the same time while windows are embedded in float32, weights left out.

    The network runs on tensors that have shapes and no contents. Libraries' own buffers come on top: expect up to
    twice as much.

    Args:
        network: any.
        shape: of the windows (N, C, *input).
    """
    hollow = copy.deepcopy(network).to("meta").eval()
    live = _LiveBytes()
    with torch.no_grad(), live:
        hollow.embed_windows(torch.empty(tuple(shape), device="meta"))
    return live.peak


class _LiveBytes(TorchDispatchMode):
    """Adds up the storages that exist while it is active."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.peak = self._now = 0
        self._known: set[int] = set()

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        for value in tree_leaves(result):
            if isinstance(value, torch.Tensor):
                self._follow(value.untyped_storage())
        return result

    def _follow(self, storage: torch.UntypedStorage) -> None:
        key = storage._cdata
        if key in self._known:
            return
        self._known.add(key)
        self._now += storage.nbytes()
        self.peak = max(self.peak, self._now)
        weakref.finalize(storage, self._forget, key, storage.nbytes())

    def _forget(self, key: int, size: int) -> None:
        self._known.discard(key)
        self._now -= size
