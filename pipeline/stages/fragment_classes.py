"""Stage 04, with `agglomerate.never_join`: the class of every fragment, and which edges classes forbid.

A fragment lies in one block, so a block tells the classes of its own fragments: one file per block.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from typing_extensions import override

from ..command_names import SCRIPTS
from ..engine.blocks.checksums import array_checksum
from ..engine.blocks.grid import Block
from ..engine.blocks.stage import BlockFunction, BlockTask, Stage
from ..engine.tracking.progress import key_of_folder
from ..rag import EdgeTable
from ..run import Run
from ..segmentation import FragmentClasses
from .class_volume import WHERE, open_class_volume
from .fragments import FragmentsTask
from .region_files import read_region, region_file, write_region
from .region_graph import RagTask

FILES_KEPT = 256
"""Blocks whose classes a reader keeps in memory."""


@dataclass(frozen=True)
class FragmentClassesTask(BlockTask):
    """Fragments and a volume of classes to a class per fragment, block by block."""

    stage = "fragment_classes"
    version = 1
    script = SCRIPTS["agglomerate"]

    @property
    def files(self) -> Path:
        """Where the file of each block lies: classes (N,) uint64 of its fragments, in the order of their ids."""
        return self.folder / "classes"

    @property
    @override
    def output(self) -> str:
        return str(self.files)

    @cached_property
    @override
    def upstream(self) -> tuple[Stage, ...]:
        return (FragmentsTask(self.run),)

    @override
    def settings(self) -> dict[str, Any]:
        with ExitStack() as stack:
            volume = open_class_volume(self.run, stack)
            section = volume.section
            together = sorted(sorted(group) for group in section.together)
            chosen = {"alone": sorted(section.alone), "together": together, "outside": section.outside}
            return {WHERE: {**volume.identity(), **chosen}}

    @override
    def stored_key(self) -> str | None:
        return key_of_folder(self)

    @override
    def prepare(self) -> None:
        self.files.mkdir(parents=True, exist_ok=True)

    @override
    def drop(self) -> None:
        """Nothing: the files lie where the markers do, and go with them."""

    @contextmanager
    @override
    def process(self) -> Iterator[BlockFunction]:
        fragments = FragmentsTask(self.run).open_complete()
        with ExitStack() as stack:
            volume = open_class_volume(self.run, stack)

            def process_block(block: Block) -> None:
                ids = fragments.read(block.box)
                found = FragmentClasses.of_voxels(
                    ids, volume.read(self.grid.to_source(block.box)), volume.section.alone
                )
                first, _ = self.grid.fragment_ids(block)
                last = int(found.ids[-1]) if len(found.ids) else first - 1
                classes = found.of_fragments(np.arange(first, last + 1, dtype=np.uint64))
                checksum = write_region(self.files, block.index, [classes])
                self.records.write(block.index, checksum, len(classes))

            yield process_block

    @override
    def stored_checksums(self) -> Callable[[Block], int]:
        def checksum_of(block: Block) -> int:
            if not region_file(self.files, block.index).exists():
                raise FileNotFoundError(region_file(self.files, block.index))
            return array_checksum(self.read(block.index))

        return checksum_of

    def read(self, block: int) -> np.ndarray:
        """(N,) uint64, the classes of the fragments of a block.

        Raises:
            UserError: they are lost or damaged.
        """
        return read_region(self.files, block, self.cure).view(np.uint64)


class ForbiddenEdges:
    """Which edges the classes of their fragments forbid; none without `agglomerate.never_join`.

    Args:
        run: whose fragments.
    """

    def __init__(self, run: Run) -> None:
        (task,) = class_stages(run) or (None,)
        self._task = task
        self._read = lru_cache(FILES_KEPT)(task.read) if task is not None else None

    def __call__(self, u: np.ndarray, v: np.ndarray) -> np.ndarray:
        """(E,) bool.

        Args:
            u, v: (E,) uint64, fragments.

        Raises:
            UserError: the classes of a block are lost or damaged.
        """
        if self._read is None:
            return np.zeros(len(u), bool)
        return self.classes(np.unique(np.concatenate([u, v]))).forbid(np.stack([u, v], axis=1))

    def others(self, edges: EdgeTable) -> EdgeTable:
        """The edges that are not forbidden; raises as above."""
        return edges if self._task is None else edges.select(~self(edges.u, edges.v))

    def classes(self, ids: np.ndarray) -> FragmentClasses:
        """Of some fragments, sorted; raises as above."""
        assert self._task is not None and self._read is not None, "there are classes"
        ids = ids[ids > 0]
        classes, size = np.zeros(len(ids), np.uint64), np.uint64(self._task.chunk_grid.voxels_per_block)
        blocks, starts = np.unique((ids - np.uint64(1)) // size, return_index=True)
        for block, rows in zip(blocks.tolist(), np.split(np.arange(len(ids)), starts[1:]), strict=False):
            local = ids[rows] - np.uint64(1) - np.uint64(block) * size
            classes[rows] = self._read(block)[local.astype(np.int64)]
        return FragmentClasses(ids, classes)


class ReadsEdges:
    """A stage that reads the edges of the graph, and leaves those alone that classes forbid."""

    run: Run

    @property
    def edge_stages(self) -> tuple[Stage, ...]:
        """The stages that say which edges there are."""
        return (RagTask(self.run), *class_stages(self.run))

    @cached_property
    def forbidden(self) -> ForbiddenEdges:
        """Which edges classes forbid."""
        return ForbiddenEdges(self.run)


def class_stages(run: Run) -> tuple[FragmentClassesTask, ...]:
    """The stage that tells the classes, if the config names any."""
    return () if run.config.agglomerate.never_join is None else (FragmentClassesTask(run),)
