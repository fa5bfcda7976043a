"""Stage 02: raw to affinities. Each block reads the context its network needs, so that blocks leave no seams.

torch and the networks are imported where they are needed: workers of the other stages start sooner without them.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from typing_extensions import override

from ..command_names import SCRIPTS, name_of
from ..config import Config
from ..engine.blocks.empty_blocks import all_empty, empty_blocks
from ..engine.blocks.grid import Block, BlockGrid
from ..engine.blocks.process import keep_freed_memory, worker_number
from ..engine.blocks.stage import BlockFunction, BlockReader, BlockTask, Stage, VolumeTask
from ..engine.blocks.storage import mask_identity, open_raw, raw_identity
from ..engine.plan import decoded_voxels, read_voxels
from ..engine.tracking.progress import read_record
from ..errors import UserError
from ..run import file_digest
from ..small_files import as_kind, understanding
from ..units import times
from ..volumes import crop
from ..volumes.volume import Volume
from .chosen_checkpoint import chosen_checkpoint, tell_doubts
from .halving_predictor import HalvingPredictor
from .prediction_plan import PredictionPlan, StoredTile, plan_with_tile, read_plan
from .quantise import QuantiseStep

if TYPE_CHECKING:
    from ..networks import EmbeddingNetwork

logger = logging.getLogger(__name__)

TILE = "tile"
"""Attribute of the array: chunks along z, y, x that one block computes."""


@dataclass(frozen=True)
class PredictTask(VolumeTask):
    """Raw to affinities, block by block."""

    stage = "predict"
    version = 2
    script = SCRIPTS["predict"]
    can_be_temporary = True

    @property
    @override
    def dataset(self) -> str:
        return "affinities"

    @property
    @override
    def dtype(self) -> str:
        return "uint8"

    @property
    @override
    def channels(self) -> tuple[int, ...]:
        return (len(self.run.config.predict.offsets),)

    @override
    def attributes(self) -> dict[str, Any]:
        return {"offsets": [list(offset) for offset in self.run.config.predict.offsets], TILE: list(self.plan.tile)}

    @cached_property
    def plan(self) -> PredictionPlan:
        """Engine, device, tile and workers, as stored when the output was begun; before that, as they would be."""
        stored = self._stored_plan()
        if stored is not None:
            return stored
        from .tile_choice import decide_plan

        return decide_plan(self.run, self.chunk_grid, self.engine)

    def _stored_plan(self) -> PredictionPlan | None:
        """The plan of an output that was begun, with the tile that the array says; None if neither is there."""
        stored = read_plan(self.folder, self.run.config, self.engine)
        tile = self.open().array.attrs.get(TILE) if self.stored_key() == self.key else None
        if tile is None:
            return stored
        with understanding(self.output, f"delete it and run {name_of(self.script)} again"):
            told = as_kind({"blocks": tile}, StoredTile, self.output)
            known = plan_with_tile(self.run.config, self.engine, told["blocks"])
        return replace(stored, tile=known.tile) if stored is not None else known

    @cached_property
    def grid(self) -> BlockGrid:
        """The region in tiles, in which markers count too."""
        return self.chunk_grid.merged(self.plan.tile)

    @cached_property
    @override
    def temporary_for(self) -> tuple[BlockTask, ...]:
        if self.run.config.predict.keep_affinities == "all":
            return ()
        from .agglomerate import readers_of_affinities

        return readers_of_affinities(self.run)

    @cached_property
    def empty_chunks(self) -> np.ndarray:
        """(z, y, x) bool over the chunk grid: chunks of raw that hold nothing."""
        return empty_blocks(self.run, self.chunk_grid)

    @cached_property
    def empty(self) -> np.ndarray:
        """(z, y, x) bool over the grid of tiles: those of which every chunk is empty."""
        return all_empty(self.empty_chunks, self.chunk_grid, self.grid)

    @override
    def prepare(self) -> None:
        self._store_plan()
        super().prepare()

    @override
    def resume(self) -> None:
        if self._stored_plan() is None:
            self.forget_blocks()  # which tiles their markers count is not known
        self._store_plan()

    def _store_plan(self) -> None:
        """Decide device and workers for this machine; a tile that is chosen stays."""
        from .tile_choice import decide_plan

        plan = decide_plan(self.run, self.chunk_grid, self.engine, self.plan.tile)
        plan.save(self.folder)
        vars(self)["plan"] = plan  # in place of the one that was read

    @cached_property
    def eight_bits(self) -> QuantiseStep | None:
        """What rounds the network to eight bits, if it predicts so."""
        if self.run.config.predict.precision == "float32":
            return None
        return QuantiseStep(self.run)

    @cached_property
    @override
    def upstream(self) -> tuple[Stage, ...]:
        return () if self.eight_bits is None else (self.eight_bits,)

    @property
    @override
    def reads(self) -> tuple[Stage, ...]:
        return ()

    @cached_property
    def checkpoint(self) -> Path:
        """The checkpoint that predicts; see `chosen_checkpoint`."""
        return chosen_checkpoint(self.run)

    def load_network(self) -> EmbeddingNetwork:
        """The network with its weights, on the configured device, in evaluation mode.

        Raises:
            UserError: the checkpoint is missing, broken, or of another network than the config describes.
        """
        return self._load()[0]

    def _load(self) -> tuple[EmbeddingNetwork, dict[str, Any]]:
        """The network, and the part of its checkpoint that continues the training."""
        from ..networks import choose_device, load_network

        network, document = load_network(self.checkpoint, self.run.config.predicting.network)
        device = choose_device(self.plan.device, "predict.device", worker_number())
        return network.to(device).eval(), document["training"]

    @override
    def reader(self) -> BlockReader:
        from .turned_prediction import turned_read_box, views_of

        network, predict = self.load_network(), self.run.config.predict
        views = views_of(predict.augment, network)
        return lambda block: turned_read_box(network, self.grid.to_source(block.box), predict.offsets, views)

    @property
    @override
    def bytes_read_per_voxel(self) -> int:
        return int(self._raw.dtype.itemsize)

    @override
    def plan_details(self) -> list[tuple[str, str]]:
        raw, read = self._raw, self.reader()
        decoded = decoded_voxels(self.grid, read, raw.shape, raw.chunks) / read_voxels(self, read)
        told = f"{decoded:.2f} voxels of raw decoded per voxel read: its chunks are {times(raw.chunks)}"
        details = [("chunks", told)]
        if self.run.config.predict.augment != "none":
            from .turned_prediction import views_of

            passes = len(views_of(self.run.config.predict.augment, self.load_network()))
            details.append(("passes", f"{passes} of the network over each block, in {passes} times the time"))
        return details

    @cached_property
    def _raw(self) -> Volume:
        """Intensities of the segmented source."""
        return self.run.open_raw(self.run.config.volumes.segment.source)

    @override
    def input_holds(self) -> Callable[[Block], bool]:
        raw = open_raw(self.run)

        def raw_varies(block: Block) -> bool:
            intensities = raw.read(self.grid.to_source(block.box))
            return bool(intensities.min() != intensities.max())

        return raw_varies

    @override
    def settings(self) -> dict[str, Any]:
        predict, region = self.run.config.predict, self.chunk_grid.region
        augmented = {} if predict.augment == "none" else {"predict.augment": predict.augment}
        mask = mask_identity(self.run) if predict.skip_empty else None  # which blocks are left out
        return {
            **augmented,
            **({} if mask is None else {"mask": mask}),
            "predict.checkpoint": self.checkpoint_hash(),
            "predict.offsets": [list(offset) for offset in predict.offsets],
            "predict.block_size": list(predict.write_block),
            "predict.engine": self.engine,
            "predict.autocast": predict.autocast,
            "volumes.segment": [list(region.begin), list(region.end)],
            "predict.skip_empty": predict.skip_empty,
            "raw": raw_identity(self.run),
        }

    @cached_property
    def engine(self) -> str:
        """What runs the network, a part of the key. With `auto`, what was used before in this run."""
        chosen = self.run.config.predict.engine
        if self.run.config.predict.precision == "int8":
            return "openvino"
        if chosen != "auto":
            return chosen
        used = read_record(self).get("settings", {}).get("predict.engine")
        if used is not None:
            return str(used)
        from .tile_choice import choose_engine

        return choose_engine(self.run, self.chunk_grid)

    def checkpoint_hash(self) -> str:
        """SHA-256 of the checkpoint; of the one that was used, when the affinities exist and the file is gone."""
        try:
            return file_digest(self.checkpoint)
        except UserError:
            used = read_record(self).get("settings", {}).get("predict.checkpoint")
            if used is None:
                raise
            return str(used)

    @override
    def check(self) -> None:
        from ..networks.fitting import check_context
        from .turned_prediction import offsets_of

        logger.debug("predicting with %s", self.checkpoint)
        network, training = self._load()
        check_context(self.run, network)
        offsets_of(self.run.config.predict.augment, network, self.run.config.predict.offsets)
        tell_doubts(self.run, self.checkpoint, training)

    @property
    @override
    def empty_is_an_answer(self) -> bool:
        return bool(getattr(self.run.config.predicting.network, "background", False))

    @property
    @override
    def workers(self) -> int:
        return self.plan.workers

    def config_for_workers(self) -> Config:
        """With the checkpoint and the engine that the driver chose: a newer checkpoint may come meanwhile."""
        chosen = {"checkpoint": str(self.checkpoint), "engine": self.engine}
        predict = self.run.config.predict.model_copy(update=chosen)
        return self.run.config.model_copy(update={"predict": predict})

    @property
    @override
    def blocks_in_flight(self) -> int:
        return self.run.config.predict.blocks_in_flight

    @contextmanager
    @override
    def process(self) -> Iterator[BlockFunction]:
        from .inference import NoNumbersError
        from .predictor import build_predictor

        keep_freed_memory()
        raw, output, empty = open_raw(self.run), self.open_output(), self.empty_chunks
        rounded = None if self.eight_bits is None else self.eight_bits.graph
        predictor = build_predictor(self.run, self.load_network(), self.engine, rounded)
        predict_box = HalvingPredictor(lambda box: raw.read_mirrored(predictor.read_box(box)), predictor.quantised)

        def process_block(block: Block) -> None:
            box = self.grid.to_source(block.box)
            try:
                affinities = predict_box(box)
            except NoNumbersError as error:
                seen = raw.read_mirrored(predictor.read_box(box))
                raise self._no_numbers(block, bool(np.isfinite(seen).all()), str(error)) from error
            for chunk in self.chunk_grid.blocks_in(block.box):
                if empty.flat[chunk.index]:
                    crop(affinities, chunk.box.relative_to(block.box))[:] = 0
            output.write(block, affinities)

        yield process_block

    def _no_numbers(self, block: Block, raw_is_finite: bool, what: str) -> UserError:
        """What is wrong where the network gives no numbers."""
        box = self.grid.to_source(block.box)
        place = f"in block {block.index}, voxels {tuple(box.begin)} to {tuple(box.end)}"
        if not raw_is_finite:
            return UserError(f"{place} and around, raw is NaN or infinite; mend it", self._raw.name)
        autocast = self.run.config.predict.autocast
        cure = "" if autocast == "off" else f", or set predict.autocast to off (it is {autocast})"
        return UserError(f"{place}, its {what}; predict with another checkpoint{cure}", str(self.checkpoint))
