"""Cuts meshes along the planes of a grid, so that the pieces fit together exactly."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from .surfaces import Surface

Place = tuple[int, int, int]
"""A cell of a grid, x, y, z."""


def cut_into_cells(surface: Surface, edges: np.ndarray) -> Iterator[tuple[Place, Surface]]:
    """The parts of a mesh in the cells of a grid that begins at 0; no triangle crosses a cell's face.

    A point where an edge crosses a plane is computed from the same two ends in the same order wherever the edge
    occurs, so that the parts on both sides have it with the same bits.

    Args:
        surface: vertices (N, 3) float64, none negative.
        edges: of a cell along x, y, z.
    """
    parts: list[tuple[tuple[int, ...], Surface]] = [((), surface)]
    for axis in range(3):
        parts = [((*place, n), part) for place, whole in parts for n, part in _slabs(whole, axis, float(edges[axis]))]
    yield from parts  # type: ignore[misc]


def _slabs(surface: Surface, axis: int, edge: float) -> Iterator[tuple[int, Surface]]:
    """The parts between planes across an axis, by halves."""
    highest = surface.vertices[surface.faces, axis].max(initial=0)
    yield from _halves(surface, axis, edge, 0, max(1, int(np.ceil(highest / edge))))


def _halves(surface: Surface, axis: int, edge: float, first: int, end: int) -> Iterator[tuple[int, Surface]]:
    if not len(surface.faces):
        return
    if end - first == 1:
        yield first, surface
        return
    middle = (first + end) // 2
    low, high = split(surface, axis, middle * edge)
    yield from _halves(low, axis, edge, first, middle)
    yield from _halves(high, axis, edge, middle, end)


def split(surface: Surface, axis: int, plane: float) -> tuple[Surface, Surface]:
    """The parts of a mesh on both sides of a plane; triangles that lie in it go to the upper one.

    Args:
        surface: vertices (N, 3) float64.
        axis: across which the plane lies.
        plane: its position.
    """
    vertices, faces = surface
    side = np.sign(vertices[:, axis] - plane).astype(np.int8)
    sides = side[faces]
    crossing = (sides.min(axis=1) < 0) & (sides.max(axis=1) > 0)
    touching = crossing & (sides == 0).any(axis=1)
    vertices, two = _cut_through_corner(vertices, _turned(faces[touching], sides[touching] == 0), side, axis, plane)
    cut = crossing & ~touching
    alone = sides[cut] == -np.sign(sides[cut].sum(axis=1, keepdims=True))
    vertices, three = _cut_off_corner(vertices, _turned(faces[cut], alone), side, axis, plane)
    everything = np.concatenate([faces[~crossing], two, three])
    below = (vertices[everything, axis].sum(axis=1) < 3 * plane) & (vertices[everything, axis].min(axis=1) < plane)
    return _compact(vertices, everything[below]), _compact(vertices, everything[~below])


def _turned(faces: np.ndarray, first: np.ndarray) -> np.ndarray:
    """Triangles turned so that the corner marked in (F, 3) comes first; they look to the same side."""
    start = first.argmax(axis=1)
    rows = np.arange(len(faces))
    return np.stack([faces[rows, (start + step) % 3] for step in range(3)], axis=1)


def _cut_through_corner(
    vertices: np.ndarray, faces: np.ndarray, side: np.ndarray, axis: int, plane: float
) -> tuple[np.ndarray, np.ndarray]:
    """Triangles whose first corner lies in the plane and whose others lie on two sides, as two each."""
    a, b, c = faces.T
    vertices, p = _crossings(vertices, b, c, side, axis, plane)
    return vertices, np.concatenate([np.stack([a, b, p], axis=1), np.stack([a, p, c], axis=1)])


def _cut_off_corner(
    vertices: np.ndarray, faces: np.ndarray, side: np.ndarray, axis: int, plane: float
) -> tuple[np.ndarray, np.ndarray]:
    """Triangles whose first corner is alone on its side, as three each."""
    a, b, c = faces.T
    vertices, p = _crossings(vertices, a, b, side, axis, plane)
    vertices, q = _crossings(vertices, a, c, side, axis, plane)
    return vertices, np.concatenate([np.stack(t, axis=1) for t in ((a, p, q), (p, b, c), (p, c, q))])


def _crossings(
    vertices: np.ndarray, one: np.ndarray, other: np.ndarray, side: np.ndarray, axis: int, plane: float
) -> tuple[np.ndarray, np.ndarray]:
    """Where edges cross the plane, as new vertices; all vertices, and the indices of the new ones."""
    low, high = np.where(side[one] < 0, one, other), np.where(side[one] < 0, other, one)
    begin, end = vertices[low], vertices[high]
    share = (plane - begin[:, axis]) / (end[:, axis] - begin[:, axis])
    points = begin + share[:, None] * (end - begin)
    points[:, axis] = plane
    return np.concatenate([vertices, points]), len(vertices) + np.arange(len(points))


def _compact(vertices: np.ndarray, faces: np.ndarray) -> Surface:
    """Triangles with the vertices that they use alone."""
    used, place = np.unique(faces, return_inverse=True)
    return Surface(vertices[used], place.reshape(-1, 3))
