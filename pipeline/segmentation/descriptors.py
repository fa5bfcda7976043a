"""Local shape descriptors (Sheridan et al., Nature Methods 2022): what an object looks like around each of its voxels.

Each is a statistic of the object's voxels near a voxel p, weighted by a Gaussian around p: how many there are, where
their mean lies, how far they spread along each axis, and how these spreads correlate.

A Gaussian and its moments are products of functions of one axis, so that the sums over a neighbourhood are taken axis
by axis. Along z an object is a few runs of voxels per column, whose sums are differences of running sums; along y and
x the sums are products with band matrices, within the bounding box of each object.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache

import numpy as np

from .compiled import compiled

TRUNCATION = 3.0
"""The Gaussian ends at so many standard deviations, as published."""
LEAST_VARIANCE = 1e-6
"""In squares of sigma: an object that spreads less along an axis has no correlation there."""
TILE = 32
"""So many rows and columns of an object are described at a time: few enough that most of what they see is near."""
Window = tuple[slice, ...]


def descriptor_channels(in_plane: bool) -> int:
    """How many numbers describe the shape at a voxel, of volumes and of images."""
    return 6 if in_plane else 10


def descriptor_reach(sigma: Sequence[float], in_plane: bool) -> tuple[int, int, int]:
    """Voxels on each side, along z, y, x, that a descriptor depends on.

    Args:
        sigma: standard deviation of the Gaussian along z, y, x, in voxels.
        in_plane: sections are images of their own.
    """
    z, y, x = (int(TRUNCATION * deviation + 0.5) for deviation in sigma)
    return (0 if in_plane else z), y, x


def local_shape_descriptors(
    labels: np.ndarray, sigma: Sequence[float], window: Window | None = None, *, in_plane: bool = False
) -> np.ndarray:
    """The descriptors of all voxels of a window.

    Those of a voxel p are made of the voxels of its object within three sigma along each axis, of their offsets d from
    p, and of the weights w(d) of a Gaussian, which add up to 1 over that neighbourhood, whether in the object or not.
    What lies outside the array is no object.

    Args:
        labels: (z, y, x) integers; values above 0 are objects.
        sigma: standard deviation of the Gaussian along z, y, x, in voxels.
        window: the part of the array that is described. Default: all of it.
        in_plane: sections are images of their own: all that concerns z is left out.

    Returns:
        (10, *window) float32 in [0, 1], of images (6, *window): offset of the mean along z, y, x, as 0.5 + 0.5 mean /
        sigma; variance along z, y, x over sigma squared; correlation r of zy, zx, yx as 0.5 + 0.5 r; and the sum of the
        weights. 0 where there is no object.
    """
    window = window or tuple(slice(0, extent) for extent in labels.shape)
    moments = weighted_moments(np.ascontiguousarray(labels), sigma, window, in_plane)
    inside = labels[window] > 0
    size = np.where(inside, moments[0], 1)
    mean = moments[1:4] / size
    variance = np.maximum(moments[[4, 7, 9]] / size - mean**2, 0)
    covariance = moments[[5, 6, 8]] / size - mean[[0, 0, 1]] * mean[[1, 2, 2]]
    spread = np.sqrt(np.maximum(variance, LEAST_VARIANCE))
    correlation = covariance / (spread[[0, 0, 1]] * spread[[1, 2, 2]])
    axes, pairs = ([1, 2], [2]) if in_plane else ([0, 1, 2], [0, 1, 2])
    described = np.concatenate([0.5 + 0.5 * mean[axes], variance[axes], 0.5 + 0.5 * correlation[pairs], moments[:1]])
    described *= inside
    result: np.ndarray = np.clip(described, 0, 1, out=described)
    return result


def weighted_moments(labels: np.ndarray, sigma: Sequence[float], window: Window, in_plane: bool) -> np.ndarray:
    """Sums over the object of each voxel of a window, weighted by the Gaussian: of 1, z, y, x, zz, zy, zx, yy, yx, xx,
    offsets from the voxel in sigmas; (10, *window) float32, 0 where there is no object.
    """
    reach = descriptor_reach(sigma, in_plane)
    ids = _ids(labels[window])
    numbers, whole = _numbered(labels, ids)
    described, inner = _numbered(np.ascontiguousarray(labels[window]), ids)
    result = np.zeros((10, *described.shape), np.float32)
    first = [part.start for part in window]
    bands = [
        _bands(sigma[axis], reach[axis], labels.shape[axis], first[axis], described.shape[axis]) for axis in (1, 2)
    ]
    inner += np.array([first[1], first[1], first[2], first[2]])
    grown = inner + np.array([-reach[1], reach[1], -reach[2], reach[2]])
    needed = np.where([True, False, True, False], np.maximum(whole, grown), np.minimum(whole, grown))
    sums = _running_sums(sigma[0], reach[0])
    for index, along_z in enumerate(_columns(numbers, needed, sums, first[0], described.shape[0])):
        inside = described == index + 1
        for rows, near_rows in _tiles(inner[index, :2], needed[index, :2], first[1], reach[1]):
            y = bands[0][:, rows, near_rows]
            near_rows = _counted_from(near_rows, needed[index, 0])
            along_yz = [y[power] @ along_z[: 3 - power, :, near_rows] for power in range(3)]
            for columns, near_columns in _tiles(inner[index, 2:], needed[index, 2:], first[2], reach[2]):
                here = inside[:, rows, columns]
                if here.any():
                    x = bands[1][:, columns, near_columns].transpose(0, 2, 1)
                    near_columns = _counted_from(near_columns, needed[index, 2])
                    moments = _along_x([sums_yz[..., near_columns] for sums_yz in along_yz], x)
                    for found, moment in zip(moments, result[:, :, rows, columns], strict=True):
                        np.copyto(moment, found, where=here)
    return result


def _along_x(along_yz: Sequence[np.ndarray], x: np.ndarray) -> Iterator[np.ndarray]:
    """The ten moments (z, rows, columns) of an object in a tile.

    Args:
        along_yz: sums of 1, y, yy over the plane's lines, each times those of 1, z, zz that are still needed: (3, z,
            rows, width), (2, z, rows, width), (1, z, rows, width).
        x: (3, width, columns), the weights times 1, offset, square.
    """
    (one, z, zz), (y, zy), (yy,) = (sums @ x[0] for sums in along_yz)
    of_x, of_zx = along_yz[0][:2] @ x[1]
    (yx,), (xx,) = along_yz[1][:1] @ x[1], along_yz[0][:1] @ x[2]
    yield from (one, z, y, of_x, zz, zy, of_zx, yy, yx, xx)


def _tiles(described: np.ndarray, needed: np.ndarray, first: int, reach: int) -> Iterator[tuple[slice, slice]]:
    """Short parts of an axis, counted from the first place of the window, and what each sees of an object.

    Args:
        described: first and end place at which the object is described.
        needed: the same of all that is needed of it.
        first: the window's first place.
        reach: how far a place sees.
    """
    for begin in range(described[0], described[1], TILE):
        end = min(begin + TILE, described[1])
        near = slice(max(begin - reach, needed[0]), min(end + reach, needed[1]))
        yield slice(begin - first, end - first), near


def _counted_from(part: slice, first: int) -> slice:
    return slice(part.start - first, part.stop - first)


def _columns(
    numbers: np.ndarray, needed: np.ndarray, sums: np.ndarray, first: int, sections: int
) -> Iterator[np.ndarray]:
    """Of each object the sums of 1, z, zz along z, (3, sections, height, width) float32; see `_sum_columns`."""
    heights, widths = needed[:, 1] - needed[:, 0], needed[:, 3] - needed[:, 2]
    begins = np.concatenate([[0], np.cumsum(3 * sections * heights * widths)])
    columns = np.zeros(begins[-1], np.float32)
    _sum_columns(numbers, needed, begins, sums, first, sections, columns)
    for begin, end, height, width in zip(begins[:-1], begins[1:], heights, widths, strict=True):
        yield columns[begin:end].reshape(3, sections, height, width)


def _ids(labels: np.ndarray) -> np.ndarray:
    """The ids of the objects in an array, ascending."""
    flat = labels.ravel()
    ids = np.unique(flat[np.flatnonzero(np.append(True, flat[1:] != flat[:-1]))])  # of each run of equal ids
    return ids[ids > 0]


def _weights(sigma: float, reach: int) -> np.ndarray:
    """Of each offset from -reach to reach the Gaussian's weight, times 1, the offset in sigmas, and its square."""
    offsets = np.arange(-reach, reach + 1) / sigma
    weights = np.exp(-(offsets**2) / 2)
    weights /= weights.sum()
    return np.stack([weights, weights * offsets, weights * offsets**2])


@lru_cache(maxsize=8)
def _running_sums(sigma: float, reach: int) -> np.ndarray:
    """(3, 2 reach + 2) float64: entry i is the sum of the first i weights."""
    weights = _weights(sigma, reach)
    return np.concatenate([np.zeros((3, 1)), np.cumsum(weights, axis=1)], axis=1)


@lru_cache(maxsize=8)
def _bands(sigma: float, reach: int, extent: int, first: int, count: int) -> np.ndarray:
    """(3, count, extent) float32: what each of `count` places from `first` on sees of an axis."""
    weights = _weights(sigma, reach)
    offsets = np.arange(extent) - np.arange(first, first + count)[:, None]
    return np.where(np.abs(offsets) <= reach, weights[:, np.clip(offsets + reach, 0, 2 * reach)], 0).astype(np.float32)


@compiled
def _numbered(labels: np.ndarray, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Labels (z, y, x) as int32: i + 1 for ids[i], which ascend, and 0 for others; and of each id the first and end
    row, first and end column, (ids, 4).
    """
    depth, height, width = labels.shape
    numbers = np.zeros(labels.shape, np.int32)
    bounds = np.zeros((len(ids), 4), np.int64)
    bounds[:, 0], bounds[:, 2] = height, width
    for z in range(depth):
        for y in range(height):
            begin = 0
            while begin < width:
                label, end = labels[z, y, begin], begin + 1
                while end < width and labels[z, y, end] == label:
                    end += 1
                place = np.searchsorted(ids, label)
                if place < len(ids) and ids[place] == label:
                    numbers[z, y, begin:end] = place + 1
                    bound = bounds[place]
                    bound[0], bound[1] = min(bound[0], y), max(bound[1], y + 1)
                    bound[2], bound[3] = min(bound[2], begin), max(bound[3], end)
                begin = end
    return numbers, bounds


@compiled
def _sum_columns(
    numbers: np.ndarray,
    bounds: np.ndarray,
    begins: np.ndarray,
    sums: np.ndarray,
    first: int,
    sections: int,
    columns: np.ndarray,
) -> None:
    """Add up the weights along z of each object, run by run.

    Args:
        numbers: (z, y, x), 0 or an object's number from 1 on.
        bounds: rows and columns of each object that are wanted.
        begins: of each object in `columns`.
        sums: running sums of the weights, from -reach on.
        first: the first section that is described; `sections` are.
        columns: of each object (3, sections, height, width), to be added to.
    """
    depth, height, width = numbers.shape
    last = sums.shape[1] - 1
    reach = (last - 1) // 2
    since = np.zeros((height, width), np.int32)
    for z in range(1, depth + 1):
        for y in range(height):
            for x in range(width):
                number = numbers[z - 1, y, x]
                if z < depth and numbers[z, y, x] == number:
                    continue
                begin, since[y, x] = since[y, x], z
                if number == 0:
                    continue
                top, bottom, left, right = bounds[number - 1]
                if y < top or y >= bottom or x < left or x >= right:
                    continue
                pixels = (bottom - top) * (right - left)
                pixel = begins[number - 1] + (y - top) * (right - left) + x - left
                for section in range(sections):
                    low = min(max(begin - first - section + reach, 0), last)
                    high = min(max(z - first - section + reach, 0), last)
                    if low < high:
                        for power in range(3):
                            columns[pixel + (power * sections + section) * pixels] += (
                                sums[power, high] - sums[power, low]
                            )
