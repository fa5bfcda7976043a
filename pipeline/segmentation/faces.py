"""Which faces of voxels hold: the graph of neighbours with a confident affinity, and its connected parts.

A voxel's open faces are the bits of one byte, in the order that connected-components-3d reads: along x the face on the
high side and the one on the low side, then those along y and z. Compiled code keeps the values of these bits: whoever
changes them changes `flooding.py` as well, so that it is compiled anew.
"""

from __future__ import annotations

import cc3d
import numpy as np

HIGH_X, LOW_X, HIGH_Y, LOW_Y, HIGH_Z, LOW_Z = (1 << bit for bit in range(6))
ALL_FACES = 63
IN_SECTION = ALL_FACES - HIGH_Z - LOW_Z
_SIDES = ((HIGH_Z, LOW_Z), (HIGH_Y, LOW_Y), (HIGH_X, LOW_X))


def open_faces(affinities: np.ndarray, threshold: float) -> np.ndarray:
    """The faces across which affinities reach a threshold.

    Args:
        affinities: (2 or 3, z, y, x), float in [0, 1] or uint8 (255 = certain), to the neighbours on the low side along
            the last axes. Without those along z, faces between sections are closed.
        threshold: the least affinity of an open face.

    Returns:
        (z, y, x) uint8 bits of open faces; those at the ends of the array are closed.
    """
    least = np.float32(threshold) * (255 if affinities.dtype == np.uint8 else 1)
    faces = np.zeros(affinities.shape[1:], np.uint8)
    for channel, axis in zip(affinities, range(3 - len(affinities), 3), strict=True):
        behind, before = [slice(None)] * 3, [slice(None)] * 3
        behind[axis], before[axis] = slice(1, None), slice(None, -1)
        held = channel[tuple(behind)] >= least
        high, low = _SIDES[axis]
        faces[tuple(before)] |= held * np.uint8(high)
        faces[tuple(behind)] |= held * np.uint8(low)
    return faces


def connected_parts(faces: np.ndarray) -> np.ndarray:
    """The parts of a volume that are connected through open faces, 1..n, (z, y, x) uint32; each voxel is in one."""
    transposed: np.ndarray = cc3d.color_connectivity_graph(np.ascontiguousarray(faces).T, connectivity=6)
    return np.ascontiguousarray(transposed.T)  # as it comes, without a copy
