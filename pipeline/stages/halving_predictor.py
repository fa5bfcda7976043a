"""Prediction on a GPU with too little memory: a box that does not fit is halved until its parts do."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

import numpy as np
from funlib.geometry import Coordinate

from ..engine.tracking.error_kinds import is_out_of_memory
from ..volumes import Box

logger = logging.getLogger(__name__)


class HalvingPredictor:
    """Predicts the affinities of boxes; where the GPU's memory is too small for one, of its halves, or their halves.

    Parts are exact as blocks are: each reads the context that it needs. Threads may read at the same time, but compute
    one after another.

    Args:
        read: what the affinities of a box need.
        compute: the affinities (k, z, y, x) of a box from what was read for it.
    """

    def __init__(self, read: Callable[[Box], np.ndarray], compute: Callable[[np.ndarray, Box], np.ndarray]) -> None:
        self._read, self._compute = read, compute
        self._computing = threading.Lock()
        self.halvings = 0

    def __call__(self, box: Box) -> np.ndarray:
        """The affinities (k, z, y, x) of a box.

        Raises:
            RuntimeError: the memory is too small even for a single voxel.
        """
        while True:
            halvings = self.halvings
            try:
                return self._predict(box, halvings)
            except RuntimeError as error:
                if not is_out_of_memory(error) or 2**halvings >= box.size:
                    raise
            self._halve(halvings)

    def _halve(self, halvings: int) -> None:
        """From here on with smaller parts, if no other thread has seen to that."""
        with self._computing:
            if self.halvings == halvings:
                self.halvings += 1
                logger.warning("too little memory on the device; from here on in %d parts", 2**self.halvings)
            free_device_memory()

    def _predict(self, box: Box, halvings: int) -> np.ndarray:
        axis = int(np.argmax(box.shape))
        if halvings == 0 or box.shape[axis] < 2:
            seen = self._read(box)
            with self._computing:
                return self._compute(seen, box)
        low_end, high_begin = list(box.end), list(box.begin)
        low_end[axis] = high_begin[axis] = box.begin[axis] + box.shape[axis] // 2
        parts = [Box(box.begin, Coordinate(low_end)), Box(Coordinate(high_begin), box.end)]
        return np.concatenate([self._predict(part, halvings - 1) for part in parts], axis=axis + 1)


def free_device_memory() -> None:
    """Give back what the failed attempt still holds."""
    import torch

    if torch.cuda.is_available():
        torch.cuda.empty_cache()
