"""PyChunkedGraph: fragments as supervoxels of chunks, and per chunk the edges and components that it ingests.

A chunk is a block (ids: `supervoxels.py`). Its file has the edges inside it, and those between it and its neighbours,
where its own supervoxel comes first; each of these stands in two files. No supervoxel is cut by a chunk's face, so that
there are no cross edges. Formats: https://github.com/CAVEconnectome/PyChunkedGraph (docs/edges_and_components.md,
io/edges.py, io/components.py).
"""

from __future__ import annotations

import bisect
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numcodecs.zstd
import numpy as np
from typing_extensions import override

from ...command_names import SCRIPTS
from ...engine.blocks.checksums import array_checksum
from ...engine.blocks.grid import Block, BlockGrid
from ...engine.blocks.stage import BlockFunction, BlockTask, Stage
from ...engine.tracking.progress import recorded_key
from ...rag import EdgeTable
from ...run import Run
from ...small_files import read_npy
from ...volumes.exports import exists_at, read_file, require_file, write_file
from ...volumes.locations import Location
from ..region_graph import RagTask, open_graph
from ..segment import lut_slice
from .place import place_key
from .segments import segments_of
from .supervoxels import LAYER_BITS, SPATIAL_BITS, chunk_id, supervoxel_ids
from .written import made_otherwise

INGEST = "ingest.json"
COMPRESSION = 17
"""Level of zstd."""


def message(fields: dict[int, bytes]) -> bytes:
    """A protocol buffer message whose fields are bytes, by number."""
    return b"".join(_varint(number << 3 | 2) + _varint(len(value)) + value for number, value in fields.items())


def _varint(value: int) -> bytes:
    parts = []
    while value > 0x7F:
        parts.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*parts, value])


def edges_message(edges: EdgeTable, first: np.ndarray, second: np.ndarray) -> bytes:
    """`EdgesMsg`: supervoxels of every edge, its mean affinity (float32) and its contacts (uint64)."""
    return message(
        {
            1: first.astype("<u8").tobytes(),
            2: second.astype("<u8").tobytes(),
            3: edges.mean_affinity.astype("<f4").tobytes(),
            4: edges.count.astype("<u8").tobytes(),
        }
    )


def components_message(segments: np.ndarray, supervoxels: np.ndarray) -> bytes:
    """`ChunkComponentsMsg`: the supervoxels of each segment after their number, one segment after another."""
    order = np.lexsort((supervoxels, segments))
    _, first, counts = np.unique(segments[order], return_index=True, return_counts=True)
    ordered = supervoxels[order].tolist()
    members = zip(first.tolist(), counts.tolist(), strict=True)
    listed = [part for at, count in members for part in (count, *ordered[at : at + count])]
    return message({1: b"".join(_varint(value) for value in listed)})


@dataclass(frozen=True)
class ChunkedGraphTask(BlockTask):
    """Edges and components of every chunk.

    Attributes:
        to: path or URL of the export.
        threshold: of the segments, which are the components.
    """

    to: str
    threshold: float

    stage = "chunked_graph"
    version = 2
    together = "chunked graph"
    script = SCRIPTS["export"]
    leaves_out_empty = False  # every chunk has its files

    @property
    @override
    def name(self) -> str:
        return f"chunked_graph_{place_key(self.to)}"  # at whatever threshold: a place holds one

    @property
    def location(self) -> Location:
        """Of the export."""
        return Location.of(self.to)

    @property
    @override
    def output(self) -> str:
        return f"{self.location.name}, edges and components"

    @cached_property
    @override
    def upstream(self) -> tuple[Stage, ...]:
        return (segments_of(self.run, self.threshold),)

    @property
    @override
    def reads(self) -> tuple[Stage, ...]:
        return (RagTask(self.run),)

    @override
    def settings(self) -> dict[str, Any]:
        return {"bits": [LAYER_BITS, SPATIAL_BITS], "threshold": self.threshold}

    @override
    def check(self) -> None:
        chunk_id(self.grid, len(self.grid) - 1)

    @override
    def lies_instead(self) -> str:
        held = made_otherwise(self, "threshold")
        if held is None:
            return ""
        there = f"{self.location.name} holds threshold {held} of this run"
        return f"{there}; name another place for {self.threshold:g}, or --overwrite"

    @override
    def stored_key(self) -> str | None:
        return recorded_key(self) if exists_at(self.location, INGEST) else None

    @cached_property
    def _ingest(self) -> bytes:
        return json.dumps(ingest_config(self.run, self.location), indent=2).encode()

    @override
    def is_intact(self) -> bool:
        return read_file(self.location, INGEST) == self._ingest

    @override
    def damage(self) -> str:
        return "" if self.is_intact() else f"{INGEST} is missing or damaged"

    @override
    def prepare(self) -> None:
        write_file(self.location, INGEST, self._ingest)

    @override
    def resume(self) -> None:
        self.prepare()

    @override
    def drop(self) -> None:
        """Nothing: every file is replaced."""

    @contextmanager
    @override
    def process(self) -> Iterator[BlockFunction]:
        lut = read_npy(segments_of(self.run, self.threshold).lut_path)
        with open_graph(self.run) as store:

            def process_block(block: Block) -> None:
                chunks = [block.index, *self._next_chunks(block)]
                edges = store.read_block_edges(chunks)
                content, partners = self._edges_of(block, edges)
                rows = lut_slice(lut, *self.grid.fragment_ids(block))
                ids = np.concatenate([rows[:, 0], partners])
                segments = np.concatenate([rows[:, 1], _segments(lut, partners)])
                inside = segments > 0
                listed = components_message(segments[inside], supervoxel_ids(ids[inside], self.grid))
                for (folder, name), part in zip(self._files(block), (content, listed), strict=True):
                    write_file(self.location.child(folder), name, part)
                checksum = array_checksum(np.frombuffer(content + listed, np.uint8))
                self.records.write(block.index, checksum, len(ids))

            yield process_block

    @override
    def stored_checksums(self) -> Callable[[Block], int]:
        def checksum_of(block: Block) -> int:
            content = b"".join(require_file(self.location.child(folder), name) for folder, name in self._files(block))
            return array_checksum(np.frombuffer(content, np.uint8))

        return checksum_of

    def _files(self, block: Block) -> tuple[tuple[str, str], tuple[str, str]]:
        """Folder and name of the two files of a chunk."""
        z, y, x = np.unravel_index(block.index, tuple(self.grid.shape))
        return ("edges", f"edges_{x}_{y}_{z}.proto.zst"), ("components", f"components_{x}_{y}_{z}.proto")

    def _next_chunks(self, block: Block) -> list[int]:
        """The chunks behind the high faces: the graph keeps an edge between two chunks with the higher one."""
        position = np.array(np.unravel_index(block.index, tuple(self.grid.shape)))
        ahead = [position + step for step in np.eye(3, dtype=np.int64)]
        inside = [place for place in ahead if (place < np.array(self.grid.shape)).all()]
        return [int(np.ravel_multi_index(tuple(place), tuple(self.grid.shape))) for place in inside]

    def _edges_of(self, block: Block, edges: EdgeTable) -> tuple[bytes, np.ndarray]:
        """The file of a chunk's edges, and the fragments of other chunks that they lead to."""
        first, end = self.grid.fragment_ids(block)
        own_u, own_v = ((ids >= first) & (ids < end) for ids in (edges.u, edges.v))
        inner, outer = edges.select(own_u & own_v), edges.select(own_u ^ own_v)
        is_own = (outer.u >= first) & (outer.u < end)
        own, other = np.where(is_own, outer.u, outer.v), np.where(is_own, outer.v, outer.u)
        order = np.lexsort((other, own))
        outer, own, other = outer.select(order), own[order], other[order]
        parts = {
            1: edges_message(inner, supervoxel_ids(inner.u, self.grid), supervoxel_ids(inner.v, self.grid)),
            2: b"",
            3: edges_message(outer, supervoxel_ids(own, self.grid), supervoxel_ids(other, self.grid)),
        }
        return bytes(numcodecs.zstd.compress(message(parts), COMPRESSION)), np.unique(other)


def _segments(lut: np.ndarray, fragments: np.ndarray) -> np.ndarray:
    """The segments of a few fragments, reading only the pages of the table that they lie in."""
    rows = [bisect.bisect_left(lut[:, 0], fragment) for fragment in fragments.tolist()]
    return np.array(lut[rows, 1]) if rows else np.zeros(0, np.uint64)


def ingest_config(run: Run, location: Location) -> dict[str, Any]:
    """What PyChunkedGraph's ingest is told of the data."""
    grid = BlockGrid.of_run(run)
    return {
        "data_source": {
            "EDGES": location.child("edges").name,
            "COMPONENTS": location.child("components").name,
            "WATERSHED": location.child("supervoxels").name,
        },
        "graph_config": {
            "CHUNK_SIZE": [int(extent) for extent in grid.block_size[::-1]],
            "FANOUT": 2,
            "LAYER_ID_BITS": LAYER_BITS,
            "SPATIAL_BITS": SPATIAL_BITS,
        },
    }
