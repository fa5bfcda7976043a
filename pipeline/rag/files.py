"""The store for network file systems: one file per block, replaced in one step, merged on read. No locks.

SQLite's locks and its shared memory do not work over NFS and its like. Here a writer makes a new file beside the
block's former one and renames it, which such file systems do at once; no two blocks share a file. Files lie in folders
of `BLOCKS_PER_FOLDER`. A file is three numpy arrays one after another: the block's summary, nodes, edges
(`numpy.load(file)` three times). Readers look at the summaries of all files first, and keep them while they stay open.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from urllib.parse import quote, unquote

import numpy as np
from funlib.geometry import Roi
from typing_extensions import override

from ..errors import UserError
from ..run import replaced_file
from .block_index import BlockEntry, BlockIndex, touches
from .records import edge_records, edges_of, node_records, nodes_of
from .store import RagStore
from .tables import EdgeTable, NodeTable

BLOCKS_PER_FOLDER = 1000
ENDING = ".rag"

BOUNDS = [("begin", "<f8", 3), ("end", "<f8", 3), ("first_v", "<u8"), ("last_v", "<u8")]
SUMMARY = np.dtype([*BOUNDS, ("nodes", "<i8"), ("edges", "<i8"), ("scored", "<i8")])

Version = tuple[int, int, int]
"""Inode, time of change and size: another file in its place has another."""


class FileRag(RagStore):
    """A graph in a folder with one file per block.

    Args:
        folder: created if it does not exist.

    Raises:
        UserError: the folder cannot be created, or is a file.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._entries: dict[Path, tuple[Version, BlockEntry]] = {}
        try:
            self._blocks.mkdir(parents=True, exist_ok=True)
            self._notes.mkdir(exist_ok=True)
        except OSError as error:
            raise UserError(f"{folder} cannot be opened as a graph of files: {error.strerror}", "rag.url") from error

    @property
    def _blocks(self) -> Path:
        return self.folder / "blocks"

    @property
    def _notes(self) -> Path:
        return self.folder / "notes"

    def _file(self, block: int) -> Path:
        return self._blocks / str(block // BLOCKS_PER_FOLDER) / f"{block}{ENDING}"

    def _replace_block(self, entry: BlockEntry, nodes: NodeTable, edges: EdgeTable) -> None:
        with replaced_file(self._file(entry.block)) as file:
            np.save(file, _summary(entry))
            np.save(file, node_records(nodes))
            np.save(file, edge_records(edges))

    @override
    def write_scores(self, block: int, scores: EdgeTable) -> None:
        if self._file(block).exists():
            with self._decoding():
                nodes, edges = self._read(block)
            scored = edges.with_scores(scores)
            self._replace_block(BlockEntry.of(block, nodes, scored), nodes, scored)

    def _block_index(
        self, roi: Roi | None = None, ids: tuple[int, int] | None = None, blocks: Sequence[int] | None = None
    ) -> BlockIndex:
        if blocks is None:
            self._entries = dict(self._look())
            found = self._entries
        else:
            found = {path: known for path in map(self._file, blocks) if (known := self._current(path)) is not None}
            self._entries |= found
        entries = sorted((entry for _, entry in found.values()), key=lambda entry: entry.block)
        if roi is not None:
            entries = [entry for entry in entries if touches(entry, roi)]
        return BlockIndex.of([(e.block, e.first_v, e.last_v, e.nodes, e.edges, e.scored) for e in entries])

    def _look(self) -> Iterator[tuple[Path, tuple[Version, BlockEntry]]]:
        """All files with their summaries; only those that changed are opened."""
        for folder in sorted(found for found in self._blocks.iterdir() if found.name.isdecimal()):
            with os.scandir(folder) as files:
                for found in files:
                    if found.name.startswith(".") or not found.name.endswith(ENDING):
                        continue  # left behind by a writer that was killed
                    path = Path(found.path)
                    yield path, self._looked_at(path, found.stat())

    def _current(self, path: Path) -> tuple[Version, BlockEntry] | None:
        """A file with its summary; None if there is none."""
        try:
            return self._looked_at(path, path.stat())
        except FileNotFoundError:
            return None

    def _looked_at(self, path: Path, status: os.stat_result) -> tuple[Version, BlockEntry]:
        """A file with its summary; it is opened only if it has changed."""
        version, known = (status.st_ino, status.st_mtime_ns, status.st_size), self._entries.get(path)
        return known if known and known[0] == version else (version, _read_entry(path))

    def _read(self, block: int) -> tuple[NodeTable, EdgeTable]:
        try:
            with self._file(block).open("rb") as file:
                np.load(file, allow_pickle=False)
                return nodes_of(np.load(file, allow_pickle=False)), edges_of(np.load(file, allow_pickle=False))
        except FileNotFoundError:
            return NodeTable.empty(), EdgeTable.empty()

    def _read_nodes(self, blocks: Sequence[int]) -> Iterator[NodeTable]:
        for block in blocks:
            yield self._read(block)[0]

    def _read_edges(self, blocks: Sequence[int]) -> Iterator[EdgeTable]:
        for block in blocks:
            yield self._read(block)[1]

    @override
    def notes(self) -> dict[str, str]:
        files = sorted(path for path in self._notes.iterdir() if not path.name.startswith("."))
        return {unquote(path.name): path.read_text(encoding="utf-8") for path in files}

    @override
    def set_note(self, name: str, text: str | None) -> None:
        path = self._notes / quote(name, safe="")
        if text is None:
            path.unlink(missing_ok=True)
            return
        with replaced_file(path) as file:
            file.write(text.encode())

    @override
    def drop(self) -> None:
        for folder in (self._notes, self._blocks):
            shutil.rmtree(folder, ignore_errors=False)
            folder.mkdir()
        self._entries = {}

    @override
    def close(self) -> None:
        self._entries = {}


def _summary(entry: BlockEntry) -> np.ndarray:
    """(1,) `SUMMARY`; bounds that there are not become NaN."""
    missing = (np.nan,) * 3
    bounds = (entry.begin or missing, entry.end or missing)
    edges = (1, 0) if entry.first_v is None else (entry.first_v, entry.last_v)
    return np.array([(*bounds, *edges, entry.nodes, entry.edges, entry.scored)], dtype=SUMMARY)


def _read_entry(path: Path) -> BlockEntry:
    with path.open("rb") as file:
        row = np.load(file, allow_pickle=False)[0]
    has_nodes, has_edges = bool(row["nodes"]), bool(row["edges"])
    return BlockEntry(
        block=int(path.stem),
        begin=tuple(row["begin"].tolist()) if has_nodes else None,
        end=tuple(row["end"].tolist()) if has_nodes else None,
        first_v=int(row["first_v"]) if has_edges else None,
        last_v=int(row["last_v"]) if has_edges else None,
        nodes=int(row["nodes"]),
        edges=int(row["edges"]),
        scored=int(row["scored"]),
    )
