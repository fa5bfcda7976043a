"""Stage 03: affinities to fragments. Each block is over-segmented by itself, its fragments never cross its faces."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import cc3d
import numpy as np
from funlib.geometry import Coordinate
from typing_extensions import override

from ..command_names import SCRIPTS
from ..config import NEAREST_NEIGHBOURS, FragmentsConfig, dump_config, fragments_warnings
from ..engine.blocks.grid import Block
from ..engine.blocks.process import keep_freed_memory
from ..engine.blocks.stage import BlockFunction, Stage, VolumeTask
from ..segmentation import make_fragments
from ..volumes import Box
from .predict import PredictTask


def fragment_block(
    affinities: np.ndarray,
    box: Box,
    first_id: int,
    voxel_size: Sequence[float],
    config: FragmentsConfig,
    offsets: Sequence[Sequence[int]] = NEAREST_NEIGHBOURS,
) -> np.ndarray:
    """Fragments of a block.

    Args:
        affinities: (k, z, y, x) uint8 of the block with its context.
        box: the block, counted from the first voxel of `affinities`.
        first_id: fragments are numbered from here on, in scan order.
        voxel_size: nanometres.
        config: method and parameters.
        offsets: one per channel.

    Returns:
        (z, y, x) uint64 of the block alone. Every fragment is connected through faces of voxels; 0 is none.
    """
    fragments = make_fragments(affinities, offsets, voxel_size=voxel_size, **config.method_settings())
    return number_pieces(fragments[box.slices], first_id)


def number_pieces(fragments: np.ndarray, first_id: int) -> np.ndarray:
    """Give every connected piece of a fragment an id of its own: first_id, first_id + 1, … in scan order; 0 stays 0."""
    pieces = cc3d.connected_components(np.ascontiguousarray(fragments), connectivity=6).astype(np.uint64)
    np.add(pieces, np.uint64(first_id - 1), out=pieces, where=pieces > 0)
    return pieces


def determining_settings(config: FragmentsConfig) -> dict[str, Any]:
    """What of the config determines the fragments.

    Keys of one watershed do not count for the other, and neither no background nor faces that are all alike are
    mentioned: fragments that were made before these keys existed stay valid where they would be made alike.
    """
    settings = dump_config(config)
    if config.method == "watershed":
        for name in ("attraction_bias", "repulsion_bias"):
            del settings[name]
    if config.method != "watershed" or config.face_threshold == 0:
        del settings["face_threshold"]
    if config.background_threshold == 0:
        del settings["background_threshold"]
    return settings


@dataclass(frozen=True)
class FragmentsTask(VolumeTask):
    """Affinities to fragments, block by block."""

    stage = "fragments"
    version = 3
    script = SCRIPTS["fragments"]

    @property
    @override
    def dataset(self) -> str:
        return "fragments"

    @cached_property
    @override
    def upstream(self) -> tuple[Stage, ...]:
        return (PredictTask(self.run),)

    @property
    @override
    def context(self) -> Coordinate:
        context = Coordinate(self.run.config.fragments.context)
        return Coordinate(0, *context[1:]) if self.run.config.volumes.images else context

    @property
    @override
    def empty_is_an_answer(self) -> bool:
        config = self.run.config.fragments
        return config.background_threshold > 0 or config.minimum_affinity > 0

    @override
    def count_ids(self, block: Block, data: np.ndarray) -> int:
        if not data.any():
            return 0
        first, _ = self.grid.fragment_ids(block)
        return int(data.max()) - first + 1

    @override
    def plan_details(self) -> list[tuple[str, str]]:
        return [("warning", warning) for warning in fragments_warnings(self.run.config, self.grid.voxel_size)]

    @override
    def settings(self) -> dict[str, Any]:
        return {f"fragments.{name}": value for name, value in determining_settings(self.run.config.fragments).items()}

    @contextmanager
    @override
    def process(self) -> Iterator[BlockFunction]:
        keep_freed_memory()
        config, offsets = self.run.config.fragments, self.run.config.predict.offsets
        affinities, output = PredictTask(self.run).open_complete(), self.open_output()

        def process_block(block: Block) -> None:
            around = self.grid.with_context(block.box, self.context, self.context)
            first_id, _ = self.grid.fragment_ids(block)
            inner = block.box.relative_to(around)
            seen = affinities.read(around)
            output.write(block, fragment_block(seen, inner, first_id, self.grid.voxel_size, config, offsets))

        yield process_block
