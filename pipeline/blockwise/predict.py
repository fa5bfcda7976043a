"""Stage 02: raw to affinities. Each block reads the context its network needs, so that blocks leave no seams.

torch and the networks are imported where they are needed: workers of the other stages start sooner without them.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import zarr

from ..errors import UserError
from ..run import Run
from ..volumes import Box
from .grid import Block
from .stage import BlockFunction, VolumeTask
from .tracking import Progress, progress_of, read_record

if TYPE_CHECKING:
    from ..networks import EmbeddingNetwork

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class PredictTask(VolumeTask):
    """Raw to affinities, block by block."""

    stage = "predict"
    version = 1
    script = "02_predict_blockwise.py"
    next_script = "03_extract_fragments.py"

    @property
    def dataset(self) -> str:
        return "affinities"

    @property
    def dtype(self) -> str:
        return "uint8"

    @property
    def channels(self) -> tuple[int, ...]:
        return (len(self.run.config.predict.offsets),)

    def attributes(self) -> dict[str, Any]:
        return {"offsets": [list(offset) for offset in self.run.config.predict.offsets]}

    @cached_property
    def checkpoint(self) -> Path:
        """The checkpoint that predicts: as configured, or the newest of the network's folder.

        Raises:
            UserError: there is none.
        """
        from ..networks import latest_checkpoint

        configured = self.run.config.predict.checkpoint
        if configured is None:
            return latest_checkpoint(self.run.network_directory(self.run.config.predict.network))
        given = Path(configured).expanduser()
        candidates = [given, self.run.directory / given]
        for candidate in candidates:
            if candidate.is_file():
                return candidate.resolve()
        raise UserError(f"there is no checkpoint {configured}", "predict.checkpoint")

    def load_network(self) -> EmbeddingNetwork:
        """The network with its weights, on the configured device, in evaluation mode.

        Raises:
            UserError: the checkpoint is missing, broken, or of another network than the config describes.
        """
        from ..networks import choose_device, load_network

        config = self.run.config
        role = config.teacher if config.predict.network == "teacher" else config.student
        network, _ = load_network(self.checkpoint, role.network if role is not None else None)
        return network.to(choose_device(config.predict.device, "predict.device")).eval()

    def reader(self) -> Callable[[Block], Box]:
        """A function that gives the raw voxels that a block reads; they may reach beyond the volume."""
        from .inference import read_box

        network, offsets = self.load_network(), self.run.config.predict.offsets
        return lambda block: read_box(network, self.grid.to_source(block.box), offsets)

    def settings(self) -> dict[str, Any]:
        predict, raw = self.run.config.predict, self.run.open_raw(self.run.config.volumes.segment.source)
        imported = zarr.open_group(str(self.run.volume), mode="r").attrs.get("import")
        return {
            "predict.checkpoint": self.checkpoint_hash(),
            "predict.offsets": [list(offset) for offset in predict.offsets],
            "predict.block_size": list(predict.block_size),
            "predict.autocast": predict.autocast,
            "volumes.segment": [list(self.grid.region.begin), list(self.grid.region.end)],
            "raw": {"import": imported, "shape": list(raw.shape), "dtype": str(raw.array.dtype)},
        }

    def checkpoint_hash(self) -> str:
        """SHA-256 of the checkpoint; of the one that was used, when the affinities exist and the file is gone."""
        try:
            return hashlib.sha256(self.checkpoint.read_bytes()).hexdigest()
        except UserError:
            used = read_record(self).get("settings", {}).get("predict.checkpoint")
            if used is None:
                raise
            return str(used)

    def check(self) -> None:
        logger.debug("predicting with %s", self.checkpoint)
        if progress_of(self) is not Progress.DONE:
            check_context(self.run, self.load_network())

    @contextmanager
    def process(self) -> Iterator[BlockFunction]:
        from ..networks import choose_autocast
        from .inference import predict_affinities, quantise, read_box

        predict = self.run.config.predict
        raw, output = self.run.open_raw(self.run.config.volumes.segment.source), self.open("r+")
        network = self.load_network()
        autocast = choose_autocast(predict.autocast, next(network.parameters()).device)

        def process_block(block: Block) -> None:
            box = self.grid.to_source(block.box)
            raw_box = read_box(network, box, predict.offsets)
            intensities = raw.read_mirrored(raw_box)
            affinities = predict_affinities(network, intensities, raw_box, box, predict.offsets, autocast)
            output.write(block.box, quantise(affinities))

        yield process_block


def check_context(run: Run, network: EmbeddingNetwork) -> None:
    """Make sure that the raw volume is larger than what the network needs to see for one voxel.

    Raises:
        UserError: it is not.
    """
    source = run.config.volumes.segment.source
    shape = run.open_raw(source).shape
    context = network.context if network.dimensions == 3 else (0, *network.context)
    if any(extent <= needed for extent, needed in zip(shape, context, strict=True)):
        raise UserError(
            f"the volume has {tuple(shape)} voxels, but the network needs more than {tuple(context)} "
            "on each side of a single one; take a larger volume or a network with less context",
            f"volumes.sources.{source}",
        )
