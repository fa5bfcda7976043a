"""What a block has of every segment (a part of its surface, of its skeleton), in a file that is read where needed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ...command_names import name_of
from ...engine.blocks.checksums import array_checksum
from ...errors import UserError
from ...small_files import replaced_file


class Piece(NamedTuple):
    """Two tables of whole numbers of 32 bits.

    Attributes:
        points: (N, p), a row per vertex.
        links: (M, q), a row per triangle or edge, indices of vertices.
    """

    points: np.ndarray
    links: np.ndarray


@dataclass(frozen=True)
class PieceFile:
    """The pieces of a block: a header of whole numbers, then all points, then all links.

    Attributes:
        path: of the file.
        widths: columns of points and links.
    """

    path: Path
    widths: tuple[int, int]

    def write(self, pieces: dict[int, Piece]) -> np.ndarray:
        """Store pieces in one step; what the file holds, for a checksum.

        Raises:
            UserError: the disk is full, or the folder cannot be written.
        """
        ids = sorted(pieces)
        points = np.cumsum([0, *(len(pieces[i].points) for i in ids)])
        links = np.cumsum([0, *(len(pieces[i].links) for i in ids)])
        header = np.array([len(ids), *ids, *points, *links], np.int64)
        tables = [pieces[i].points for i in ids] + [pieces[i].links for i in ids]
        content = header.tobytes() + b"".join(np.ascontiguousarray(table, np.int32).tobytes() for table in tables)
        with replaced_file(self.path) as file:
            file.write(content)
        return np.frombuffer(content, np.uint8)

    def open(self, checksum: int | None = None) -> OpenPieces:
        """The file, mapped into memory.

        Args:
            checksum: of what was written, if it is known.

        Raises:
            UserError: it is gone or damaged.
        """
        try:
            content = np.memmap(self.path, np.uint8, "r")
            if checksum is not None and array_checksum(content) != checksum:
                raise ValueError("it is not what was written")
            count = int(content[:8].view(np.int64)[0])
            header = content[8 : 8 * (3 + 3 * count)].view(np.int64)
            ids, points, links = np.split(header, [count, 2 * count + 1])
            words = self.widths[0] * int(points[-1]) + self.widths[1] * int(links[-1])
            if len(content) != 8 * (3 + 3 * count) + 4 * words:
                raise ValueError("its end is missing")
        except (OSError, ValueError, IndexError) as error:
            what = f"cannot be read ({error}); {name_of('audit.py')} --requeue has it made again"
            raise UserError(what, str(self.path)) from error
        return OpenPieces(content, ids.astype(np.uint64), points, links, self.widths)


@dataclass(frozen=True)
class OpenPieces:
    """An open `PieceFile`.

    Attributes:
        content: the whole file.
        ids: (n,) uint64, ascending.
        points, links: (n + 1,) the rows at which those of each segment begin.
        widths: columns of points and links.
    """

    content: np.ndarray
    ids: np.ndarray
    points: np.ndarray
    links: np.ndarray
    widths: tuple[int, int]

    def get(self, segment: int) -> Piece | None:
        """The piece of a segment; None if the block has none."""
        place = int(np.searchsorted(self.ids, np.uint64(segment)))
        if place == len(self.ids) or int(self.ids[place]) != segment:
            return None
        start = 8 * (3 + 3 * len(self.ids))
        middle = start + 4 * self.widths[0] * int(self.points[-1])
        points = self._rows(start, self.points[place : place + 2], self.widths[0])
        return Piece(points, self._rows(middle, self.links[place : place + 2], self.widths[1]))

    def _rows(self, start: int, span: np.ndarray, width: int) -> np.ndarray:
        begin, end = (start + 4 * width * int(row) for row in span)
        return np.array(self.content[begin:end]).view(np.int32).reshape(-1, width)
