"""WEBKNOSSOS: fragments as a layer, and an agglomerate file (HDF5) that joins them at a threshold, with their edges.

WEBKNOSSOS looks ids up by their place in an array, so that the layer has its fragments numbered 1, 2, … without gaps
(`NumberedFragments`), and agglomerates are numbered so, too. The file also says which ids these are in the run.
Format: https://docs.webknossos.org/webknossos/proofreading/proofreading_tool.html and, of the arrays, the reader in
https://github.com/scalableminds/webknossos (AgglomerateService).
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import h5py
import numpy as np
from typing_extensions import override

from ...engine.blocks.grid import BlockGrid
from ...engine.blocks.stage import Stage
from ...rag import EdgeTable, NodeTable
from ...segmentation import SmallSegments, joining_edges
from ...small_files import read_npy
from ...volumes.locations import Location
from ..agglomerate import agglomeration
from ..graph_rows import read_graph
from ..region_graph import RagTask, open_graph
from .place import place_key
from .segments import segments_of
from .written import FilesStep, WrittenFile

FOLDER = "fragments/agglomerates"
"""Where WEBKNOSSOS looks for agglomerate files of the layer."""


def agglomerate_arrays(
    nodes: NodeTable, edges: EdgeTable, lut: np.ndarray, voxel_of: np.ndarray, joining: np.ndarray
) -> dict[str, np.ndarray]:
    """The arrays of an agglomerate file, by name.

    Args:
        nodes: all fragments, sorted by id.
        edges: all edges, with scores.
        lut: (N, 2) uint64, fragment and segment, sorted; segment 0 is none.
        voxel_of: (N, 3) position of each fragment in voxels of the layer, order x, y, z.
        joining: (E,) bool, edges that were joined.

    Returns:
        Fragments count from 1 in the order of their ids, segments likewise; 0 is none. Edges are places among the
        fragments of their segment, as WEBKNOSSOS wants them.
    """
    segments = np.unique(lut[:, 1])
    segments = segments[segments > 0]
    agglomerate = np.where(lut[:, 1] > 0, np.searchsorted(segments, lut[:, 1]) + 1, 0)
    members = np.argsort(agglomerate, kind="stable")
    members = members[agglomerate[members] > 0]
    starts = np.searchsorted(agglomerate[members], np.arange(len(segments) + 2))
    place = np.zeros(len(lut), np.int64)
    place[members] = np.arange(len(members)) - starts[agglomerate[members]]
    inside = edges.select(joining)
    u, v = np.searchsorted(nodes.id, inside.u), np.searchsorted(nodes.id, inside.v)
    of_edge = agglomerate[u]
    order = np.lexsort((place[v], place[u], of_edge))
    order = order[of_edge[order] > 0]
    return {
        "segment_to_agglomerate": np.concatenate([[0], agglomerate]).astype(np.uint64),
        "agglomerate_to_segments_offsets": starts.astype(np.uint64),
        "agglomerate_to_segments": (members + 1).astype(np.uint64),
        "agglomerate_to_positions": voxel_of[members].astype(np.int64),
        "agglomerate_to_edges_offsets": np.searchsorted(of_edge[order], np.arange(len(segments) + 2)).astype(np.uint64),
        "agglomerate_to_edges": np.stack([place[u], place[v]], axis=1)[order].astype(np.uint64),
        "agglomerate_to_affinities": inside.mean_affinity[order].astype(np.float32),
        "fragment_ids": np.concatenate([[0], lut[:, 0]]).astype(np.uint64),
        "segment_ids": np.concatenate([[0], segments]).astype(np.uint64),
    }


@dataclass(frozen=True)
class AgglomerateStep(FilesStep):
    """The agglomerate file of a threshold.

    Attributes:
        threshold: edges up to this score are merged.
    """

    threshold: float

    stage = "agglomerates"
    version = 1

    @property
    @override
    def name(self) -> str:
        return f"agglomerates_{place_key(self.to)}_{self.threshold:g}"

    @property
    @override
    def sign(self) -> tuple[str, str]:
        return FOLDER, f"agglomerate_view_{self.threshold:g}.hdf5"

    @property
    @override
    def output(self) -> str:
        return Location.of(self.to).child("/".join(self.sign)).name

    @cached_property
    @override
    def upstream(self) -> tuple[Stage, ...]:
        return (segments_of(self.run, self.threshold),)

    @override
    def settings(self) -> dict[str, Any]:
        return {}

    @override
    def files(self) -> Iterator[WrittenFile]:
        grid = BlockGrid.of_run(self.run)
        with open_graph(self.run) as store:
            nodes, edges = read_graph(store, RagTask(self.run), agglomeration(self.run))
        lut = read_npy(segments_of(self.run, self.threshold).lut_path)
        voxels = np.floor((nodes.centre - np.array(grid.offset)) / np.array(grid.voxel_size)).astype(np.int64)
        config = self.run.config
        small = SmallSegments.of(config.small_segments, nodes.id, nodes.size, edges.mean_affinity)
        pairs, largest = np.searchsorted(nodes.id, edges.pairs), min(self.threshold, config.agglomerate.maximum_score)
        joining = joining_edges(nodes.id, pairs, edges.score, largest, small)
        content = io.BytesIO()
        with h5py.File(content, "w") as file:
            for name, array in agglomerate_arrays(nodes, edges, lut, voxels[:, ::-1], joining).items():
                file.create_dataset(name, data=array)
        yield WrittenFile(*self.sign, content.getvalue())
