"""The first stage of things made of whole segments: pieces in every block (`wholes.py` makes whole ones of them)."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from typing_extensions import override

from ...command_names import SCRIPTS
from ...engine.blocks.checksums import array_checksum
from ...engine.blocks.grid import Block
from ...engine.blocks.stage import BlockFunction, BlockTask, Stage
from ...engine.tracking.progress import key_of_folder
from ...errors import UserError
from ..fragments import FragmentsTask
from .piece_files import Piece, PieceFile
from .segments import SegmentedVolume, segments_of


def require(*modules: str) -> None:
    """Make sure that libraries of the extra `export` are installed.

    Raises:
        UserError: one is not.
    """
    for module in modules:
        try:
            import_module(module)
        except ImportError as error:
            raise UserError(f'this needs {module}: pip install "emdistill[export]" ({error})') from None


@dataclass(frozen=True)
class PiecesTask(BlockTask):
    """Pieces of segments in every block, in files of the run.

    Attributes:
        threshold: of the segmentation.
        minimum_size: voxels that a segment has at least.
    """

    threshold: float
    minimum_size: int

    script = SCRIPTS["export"]
    leaves_out_empty = False  # the surface of what begins in the next block may lie in this one
    libraries: ClassVar[tuple[str, ...]]
    """What it needs of the extra `export`."""
    widths: ClassVar[tuple[int, int]]
    """Columns of points and links."""

    @abstractmethod
    def pieces_of(self, volume: SegmentedVolume, block: Block) -> dict[int, Piece]:
        """The pieces in a block, by segment."""

    @property
    @override
    def name(self) -> str:
        return f"{self.stage}_{self.threshold:g}_{self.minimum_size}"

    @property
    @override
    def output(self) -> str:
        return str(self.folder / "pieces")

    def piece_file(self, block: int) -> PieceFile:
        """The file of a block."""
        return PieceFile(self.folder / "pieces" / f"{block // 1000}" / f"{block}.pieces", self.widths)

    @cached_property
    @override
    def upstream(self) -> tuple[Stage, ...]:
        return (segments_of(self.run, self.threshold),)

    @property
    @override
    def reads(self) -> tuple[Stage, ...]:
        return (FragmentsTask(self.run),)

    @override
    def settings(self) -> dict[str, Any]:
        return {"minimum_size": self.minimum_size}

    @override
    def check(self) -> None:
        require(*self.libraries)

    @override
    def stored_key(self) -> str | None:
        return key_of_folder(self, "pieces")

    @override
    def prepare(self) -> None:
        Path(self.output).mkdir(parents=True, exist_ok=True)

    @override
    def drop(self) -> None:
        """Nothing: the files lie where the markers do, and go with them."""

    @override
    def plan_details(self) -> list[tuple[str, str]]:
        return [("files", f"{len(self.grid)} in {self.output}, which the stage after it reads")]

    @override
    def stored_checksums(self) -> Callable[[Block], int]:
        return lambda block: array_checksum(np.fromfile(self.piece_file(block.index).path, np.uint8))

    @contextmanager
    @override
    def process(self) -> Iterator[BlockFunction]:
        volume = SegmentedVolume(segments_of(self.run, self.threshold), self.minimum_size)

        def process_block(block: Block) -> None:
            pieces = self.pieces_of(volume, block)
            content = self.piece_file(block.index).write(pieces)
            self.records.write(block.index, array_checksum(content), len(pieces))

        yield process_block
