"""WEBKNOSSOS: fragments as a layer, and an agglomerate file (HDF5) that joins them at a threshold, with their edges.

WEBKNOSSOS looks ids up by their place in an array, so that the layer has its fragments numbered 1, 2, … without gaps
(`NumberedFragments`), and agglomerates are numbered so, too. The file (`agglomerate_file.py`) also says which ids these
are in the run.
Format: https://docs.webknossos.org/webknossos/proofreading/proofreading_tool.html and, of the arrays, the reader in
https://github.com/scalableminds/webknossos (AgglomerateService).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from typing_extensions import override

from ...engine.blocks.grid import BlockGrid
from ...engine.blocks.stage import Stage
from ...rag import RagStore
from ...small_files import read_npy
from ...volumes.locations import Location
from ..agglomerate import agglomeration
from ..lookup_tables import JoinLimits, join_fragments
from ..region_graph import RagTask, open_graph
from .agglomerate_file import JoiningEdges, write_agglomerate_file
from .place import place_key
from .segments import segments_of
from .written import FilesStep, WrittenFile

FOLDER = "fragments/agglomerates"
"""Where WEBKNOSSOS looks for agglomerate files of the layer."""


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
        config, step = self.run.config, segments_of(self.run, self.threshold)
        largest = min(self.threshold, config.agglomerate.maximum_score)
        limits, path = JoinLimits(largest, config.small_segments), self.run.luts / f".{self.name}.hdf5"
        try:
            with open_graph(self.run) as store:
                joining = JoiningEdges(path.parent, store.counts().edges)
                scores = agglomeration(self.run)
                join_fragments(store, RagTask(self.run), scores, limits, path.parent, joining.add)
                write_agglomerate_file(path, read_npy(step.lut_path), self._positions(store), joining)
            yield WrittenFile(*self.sign, path)
        finally:
            path.unlink(missing_ok=True)

    def _positions(self, store: RagStore) -> Iterator[np.ndarray]:
        """Where the fragments lie, a portion after another: (N, 3) int64, voxels of the layer, order x, y, z."""
        grid = BlockGrid.of_run(self.run)
        for nodes in store.iterate_nodes():
            voxels = np.floor((nodes.centre - np.array(grid.offset)) / np.array(grid.voxel_size)).astype(np.int64)
            yield voxels[:, ::-1]
