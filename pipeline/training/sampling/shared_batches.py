"""Batches in memory that processes share: reading one from a pipe would make each step of a light network wait."""

from __future__ import annotations

import mmap
import os
import tempfile
from collections.abc import Callable, Mapping
from multiprocessing import reduction
from typing import Any

import numpy as np

Layout = Mapping[str, tuple[tuple[int, ...], type[np.generic]]]
"""Shape and data type of each array of a batch, by name."""


class BatchSlots:
    """Room for a few batches, which goes along to a process that is started with it. Nothing is left when all end.

    Args:
        layout: of every batch.
        count: batches.
    """

    def __init__(self, layout: Layout, count: int) -> None:
        self._layout = layout
        self._slot = sum(_bytes_of(shape, dtype) for shape, dtype in layout.values())
        self._open(_memory_file(self._slot * count))

    def _open(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._memory = mmap.mmap(descriptor, 0)

    def __reduce__(self) -> tuple[Callable[..., BatchSlots], tuple[Any, ...]]:
        return _opened_elsewhere, (self._layout, self._slot, reduction.DupFd(self._descriptor))

    def write(self, slot: int, batch: Mapping[str, np.ndarray]) -> None:
        """Copy a batch into a slot."""
        for name, place in self._places(slot).items():
            place[...] = batch[name]

    def read(self, slot: int) -> dict[str, np.ndarray]:
        """A copy of the batch in a slot."""
        return {name: place.copy() for name, place in self._places(slot).items()}

    def _places(self, slot: int) -> dict[str, np.ndarray]:
        places, begin = {}, slot * self._slot
        for name, (shape, dtype) in self._layout.items():
            places[name] = np.ndarray(shape, dtype, self._memory, begin)
            begin += _bytes_of(shape, dtype)
        return places

    def close(self) -> None:
        """Give this process's share back."""
        self._memory.close()
        os.close(self._descriptor)


def _bytes_of(shape: tuple[int, ...], dtype: type[np.generic]) -> int:
    """Rounded up, so that every array of a slot begins where its type may."""
    unaligned = int(np.prod(shape)) * np.dtype(dtype).itemsize
    return -(-unaligned // 64) * 64


def _memory_file(size: int) -> int:
    """Descriptor of a file of that size without a name, in memory where the system has such files."""
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("batches")
    else:
        with tempfile.TemporaryFile() as file:
            descriptor = os.dup(file.fileno())
    os.ftruncate(descriptor, size)
    return descriptor


def _opened_elsewhere(layout: Layout, slot: int, descriptor: Any) -> BatchSlots:
    slots = BatchSlots.__new__(BatchSlots)
    slots._layout, slots._slot = layout, slot
    slots._open(descriptor.detach())
    return slots
