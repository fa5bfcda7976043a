"""One skeleton of what the blocks have found of it: TEASAR once more, on the graph of all pieces.

A block cannot know what is a tip and what a bump near its faces, where a segment runs along a face it is skeletonised
twice, and every face is reached by a branch of its own. So blocks give more than is wanted, and here the longest path
is taken, then the longest that it does not make needless, and so on. Wherever a step from one piece to another stays in
the ball that a vertex's distance from the surface allows, it is an edge, too.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import connected_components, dijkstra
from scipy.spatial import KDTree

SCALE, CONSTANT = 1.5, 300.0
"""A branch makes others needless within SCALE times its distance from the surface and CONSTANT nanometres: what is
common for neurites."""
LONGEST_STEP = 200.0
"""Nanometres from one piece to another at most, however thick the segment is."""
STEP_COST = 1.5
"""A step costs so many times its length: it joins what runs side by side, but does not cut bends short."""
OFF_CENTRE_COST = 4.0
"""So many times its length, at most, an edge costs more the farther it is from the middle."""
SMOOTHING_ROUNDS = 10
STRAY = 0.45
"""Part of its distance from the surface by which smoothing may move a vertex: rounded to voxels it stays inside."""


class Skeleton(NamedTuple):
    """A forest.

    Attributes:
        vertices: (N, 3), order z, y, x; voxels or nanometres.
        edges: (E, 2) indices.
        radii: (N,) distance from the surface in nanometres.
    """

    vertices: np.ndarray
    edges: np.ndarray
    radii: np.ndarray


def whole_skeleton(pieces: Sequence[Skeleton], voxel_size: Sequence[float]) -> Skeleton:
    """The skeleton of pieces that meet in common vertices.

    Args:
        pieces: vertices in voxels, whole numbers; more branches than wanted.
        voxel_size: nanometres.

    Returns:
        Vertices in voxels, with fractions. No circles; a tree for every part of the segment that is connected.
    """
    size = np.array(voxel_size, np.float64)
    united = _united(pieces)
    positions, radii = united.vertices * size, united.radii
    graph, lengths = _graphs(positions, united.edges, radii)
    _, part_of = connected_components(graph, directed=False)
    order = np.argsort(part_of, kind="stable")
    edges = []
    kept = np.zeros(len(positions), bool)
    for members in np.split(order, np.flatnonzero(np.diff(part_of[order])) + 1):
        inside, inside_lengths = graph[members][:, members], lengths[members][:, members]
        tree = _tree(inside, inside_lengths, positions[members], radii[members])
        edges.append(members[tree])
        kept[members[tree].ravel() if len(tree) else members[:1]] = True
    number = np.cumsum(kept) - 1
    links = number[np.concatenate(edges)]
    smooth = _smoothed(positions[kept], links, radii[kept])
    return Skeleton(smooth / size, links, radii[kept])


def _united(pieces: Sequence[Skeleton]) -> Skeleton:
    """All pieces as one graph; of a vertex that several have, the smallest radius: a block sees no surface beyond its
    faces.
    """
    counts = np.cumsum([0, *(len(piece.vertices) for piece in pieces)])
    vertices, place = np.unique(np.concatenate([p.vertices for p in pieces]), axis=0, return_inverse=True)
    place = place.reshape(-1)
    radii = np.full(len(vertices), np.inf)
    np.minimum.at(radii, place, np.concatenate([piece.radii for piece in pieces]).astype(np.float64))
    links = [piece.edges.astype(np.int64) + first for piece, first in zip(pieces, counts[:-1], strict=True)]
    edges = np.unique(np.sort(place[np.concatenate(links)].reshape(-1, 2), axis=1), axis=0)
    return Skeleton(vertices, edges[edges[:, 0] != edges[:, 1]], radii)


def _graphs(positions: np.ndarray, edges: np.ndarray, radii: np.ndarray) -> tuple[csr_matrix, csr_matrix]:
    """(N, N) each, symmetric: what edges and steps cost, and how long they are."""
    count = len(positions)
    steps = KDTree(positions).query_pairs(min(2 * float(radii.max()), LONGEST_STEP), output_type="ndarray")
    near = radii[steps[:, 0]] + radii[steps[:, 1]]
    steps = steps[np.linalg.norm(positions[steps[:, 0]] - positions[steps[:, 1]], axis=1) <= near]
    ends = np.concatenate([edges, np.sort(steps, axis=1)]).astype(np.int64)
    _, first = np.unique(ends[:, 0] * count + ends[:, 1], return_index=True)  # of a pair that is both, the edge
    u, v = ends[first].T
    thickest = radii.copy()
    np.maximum.at(thickest, u, radii[v])
    np.maximum.at(thickest, v, radii[u])
    off_centre = 1 + OFF_CENTRE_COST * (1 - radii / np.maximum(thickest, 1e-9)) ** 2
    lengths = np.linalg.norm(positions[u] - positions[v], axis=1)
    costs = lengths * np.where(first < len(edges), 1, STEP_COST) * (off_centre[u] + off_centre[v]) / 2
    both = np.concatenate([u, v]), np.concatenate([v, u])
    graph, long = (csr_matrix((np.tile(each, 2), both), shape=(count, count)) for each in (costs, lengths))
    return graph, long


def _tree(graph: csr_matrix, lengths: csr_matrix, positions: np.ndarray, radii: np.ndarray) -> np.ndarray:
    """(E, 2) edges of the paths that are kept of a connected graph."""
    root = int(dijkstra(lengths, indices=0).argmax())
    distances = dijkstra(lengths, indices=root)
    _, before = dijkstra(graph, indices=root, return_predecessors=True)
    places = KDTree(positions)
    on_tree, needless = np.zeros(len(positions), bool), np.zeros(len(positions), bool)
    on_tree[root] = True
    found: list[np.ndarray] = []
    for tip in np.argsort(-distances, kind="stable").tolist():
        if on_tree[tip] or needless[tip]:
            continue
        path = _path_to_tree(graph, tip, on_tree) if found else _path_back(before, tip)
        on_tree[path] = True
        found.append(np.stack([path[:-1], path[1:]], axis=1))
        for first in range(0, len(path), 1000):  # a long path's neighbours at once take much memory
            some = path[first : first + 1000]
            for near in places.query_ball_point(positions[some], SCALE * radii[some] + CONSTANT):
                needless[near] = True
    return np.concatenate(found) if found else np.zeros((0, 2), np.int64)


def _path_back(before: np.ndarray, tip: int) -> np.ndarray:
    """The vertices from a tip to the root."""
    path = [tip]
    while before[path[-1]] >= 0:
        path.append(int(before[path[-1]]))
    return np.array(path)


def _path_to_tree(graph: csr_matrix, tip: int, on_tree: np.ndarray) -> np.ndarray:
    """The vertices of the cheapest path from a tip to the tree; only what is nearer than the tree is looked at."""
    costs, towards, waiting, done = {tip: 0.0}, {tip: -1}, [(0.0, tip)], set()
    while True:
        cost, vertex = heapq.heappop(waiting)
        if vertex in done:
            continue
        if on_tree[vertex]:
            break
        done.add(vertex)
        row = slice(graph.indptr[vertex], graph.indptr[vertex + 1])
        for other, step in zip(graph.indices[row].tolist(), graph.data[row].tolist(), strict=True):
            if cost + step < costs.get(other, np.inf):
                costs[other], towards[other] = cost + step, vertex
                heapq.heappush(waiting, (cost + step, other))
    path = [vertex]
    while towards[path[-1]] >= 0:
        path.append(towards[path[-1]])
    return np.array(path)


def _smoothed(positions: np.ndarray, edges: np.ndarray, radii: np.ndarray) -> np.ndarray:
    """Vertices between their neighbours, without the steps of voxels; ends stay, and all stay inside the segment."""
    count = len(positions)
    u, v = np.concatenate([edges, edges[:, ::-1]]).T
    neighbours = csr_matrix((np.ones(len(u)), (u, v)), shape=(count, count))
    degree = np.bincount(u, minlength=count)[:, None]
    moved, limit = positions, STRAY * radii[:, None]
    for _ in range(SMOOTHING_ROUNDS):
        wanted = (moved + neighbours @ moved / np.maximum(degree, 1)) / 2 - positions
        length = np.linalg.norm(wanted, axis=1, keepdims=True)
        wanted *= np.minimum(1, limit / np.maximum(length, 1e-9))
        moved = np.where(degree > 1, positions + wanted, positions)
    return np.asarray(moved)
