"""The network that predicts, rounded to eight bits once (`predict.precision: int8`), before stage 02 uses it."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from funlib.geometry import Coordinate
from typing_extensions import override

from ..command_names import SCRIPTS
from ..config import Region
from ..engine.blocks.stage import DriverStep
from ..engine.blocks.storage import raw_identity
from ..engine.tracking.progress import read_record, recorded_key
from ..errors import UserError
from ..run import Run, file_digest, region_box
from ..volumes import Box
from .chosen_checkpoint import chosen_checkpoint

if TYPE_CHECKING:
    import torch

    from ..networks import EmbeddingNetwork

logger = logging.getLogger(__name__)

SAMPLES = 32
"""Places in the raw that features are measured in."""
SAMPLE = Coordinate(4, 96, 96)
"""Voxels that are embedded at each of them, at most."""


def calibration_regions(run: Run) -> tuple[tuple[str, Region], ...]:
    """The regions whose raw features are measured on, and where the config names them: those that the network was
    trained on; of a run without such the segmented one.
    """
    train = run.config.volumes.train
    if not train:
        return (("volumes.segment", run.config.volumes.segment),)
    return tuple((f"volumes.train.{index}", region) for index, region in enumerate(train))


def sources_to_predict(run: Run) -> list[str]:
    """The sources that stage 02 reads."""
    measured = calibration_regions(run) if run.config.predict.precision == "int8" else ()
    return list(dict.fromkeys((run.config.volumes.segment.source, *(region.source for _, region in measured))))


@dataclass(frozen=True)
class QuantiseStep(DriverStep):
    """A checkpoint to a graph in eight bits, with ranges measured on raw of the training regions."""

    stage = "quantise"
    version = 1
    script = SCRIPTS["predict"]

    @cached_property
    def checkpoint(self) -> Path:
        """Of the network; see `chosen_checkpoint`."""
        return chosen_checkpoint(self.run)

    @property
    def graph(self) -> Path:
        """The file of the graph; its weights and digest lie beside it."""
        return self.run.network_directory(self.run.config.predict.network) / "int8.xml"

    @property
    @override
    def output(self) -> str:
        return str(self.graph)

    @override
    def settings(self) -> dict[str, Any]:
        regions, predict = calibration_regions(self.run), self.run.config.predict
        augmented = {} if predict.augment == "none" else {"predict.augment": predict.augment}  # more offsets compare
        return {
            **augmented,
            "predict.checkpoint": self._checkpoint_digest(),
            "predict.precision": "int8",
            "predict.offsets": [list(offset) for offset in predict.offsets],
            "seed": self.run.config.seed,
            "regions": [region.model_dump(mode="json") for _, region in regions],
            "raw": {source: raw_identity(self.run, source) for source in sorted({r.source for _, r in regions})},
        }

    def _checkpoint_digest(self) -> str:
        """Of the file; of the one that was used, if it is gone."""
        try:
            return file_digest(self.checkpoint)
        except (OSError, UserError):
            used = read_record(self).get("settings", {}).get("predict.checkpoint")
            if used is None:
                raise
            return str(used)

    @override
    def check(self) -> None:
        from ..networks.eight_bits import has_eight_bit_products, require_quantiser

        require_quantiser()
        if has_eight_bit_products() is False:
            logger.warning("this CPU has no instructions for eight bits (VNNI): int8 will hardly be faster here")

    @override
    def stored_key(self) -> str | None:
        key = recorded_key(self)
        return key if key is not None and self.is_intact() else None

    @override
    def is_intact(self) -> bool:
        from ..networks.eight_bits import is_quantised

        return is_quantised(self.graph)

    @override
    def damage(self) -> str:
        from ..networks.eight_bits import require_unchanged

        try:
            require_unchanged(self.graph)
        except UserError as error:
            return error.what
        return ""

    @override
    def prepare(self) -> None:
        self.drop()

    @override
    def drop(self) -> None:
        from ..networks.eight_bits import delete_quantised

        delete_quantised(self.graph)

    @override
    def execute(self) -> None:
        from ..networks import compact, load_network
        from ..networks.eight_bits import quantise, quantiser_versions
        from .turned_prediction import offsets_of

        network, _ = load_network(self.checkpoint, self.run.config.predicting.network)
        predict = self.run.config.predict
        network = compact(network.eval(), offsets_of(predict.augment, network, predict.offsets))
        windows = list(self._windows(network))
        quantise(network, windows, self.graph)
        versions = ", ".join(f"{name} {number}" for name, number in quantiser_versions().items())
        logger.info("rounded to eight bits: %s, measured on %d windows of raw (%s)", self.graph, len(windows), versions)

    @cached_property
    def _boxes(self) -> list[tuple[Region, str, Box]]:
        volumes = [(region, self.run.open_raw(region.source), where) for where, region in calibration_regions(self.run)]
        return [(region, where, region_box(region, raw.shape, where)) for region, raw, where in volumes]

    def _windows(self, network: EmbeddingNetwork) -> Iterator[torch.Tensor]:
        """A window from each of some random places, in regions by their size, the same whenever it is called."""
        import torch

        from ..networks import normalise_raw
        from .inference import read_box

        rng = np.random.default_rng([self.run.config.seed, SAMPLES])
        sizes = np.array([box.size for _, _, box in self._boxes], dtype=float)
        for _ in range(SAMPLES):
            region, _, box = self._boxes[rng.choice(len(sizes), p=sizes / sizes.sum())]
            shape = [min(have, most) for have, most in zip(box.shape, SAMPLE, strict=True)]
            shift = [int(rng.integers(0, have - size + 1)) for have, size in zip(box.shape, shape, strict=True)]
            begin = box.begin + Coordinate(shift)
            needed = read_box(network, Box(begin, begin + Coordinate(shape)), [(0, 0, 0)])
            raw = self.run.open_raw(region.source).read_mirrored(needed)
            shown = torch.from_numpy(normalise_raw(raw, self.run.intensity(region.source)))
            volume = shown[:, None] if network.dimensions == 2 else shown[None, None]
            windows = network.windows(volume)
            yield windows[len(windows) // 2][None].contiguous()
