"""Teachers that are no networks of ours: affinities that came with the batch, and modules that others exported."""

from __future__ import annotations

import itertools
import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from funlib.geometry import Coordinate
from typing_extensions import override

from ...config import Offset, TorchscriptTeacherConfig
from ...distillation import GivenAffinities, channel_of
from ...errors import UserError
from ...volumes import Box
from .embedding import spatial

TAUGHT = "taught"
"""Name of the affinities from the disk in a batch."""
WHERE = "teacher.module"
SLACK = 1e-3
"""By which affinities may lie beyond 0 and 1: half precision rounds."""
CANNOT_RUN = (RuntimeError, ValueError, TypeError, NotImplementedError, torch.jit.Error)
"""What a module raises that takes something else."""


class GivenTeacher(ABC):
    """Gives the affinities of a batch of patches.

    Attributes:
        part: the voxels of a patch whose affinities it gives.
    """

    part: Box

    @abstractmethod
    def __call__(self, batch: dict[str, torch.Tensor]) -> GivenAffinities:
        """The affinities of `part`."""


class StoredTeacher(GivenTeacher):
    """Affinities that the loader has read and augmented with the raw.

    Args:
        part: the voxels that the student embeds.
        offsets: of the channels.
    """

    def __init__(self, part: Box, offsets: Sequence[Offset]) -> None:
        self.part = part
        self.offsets = tuple(offsets)

    @override
    def __call__(self, batch: dict[str, torch.Tensor]) -> GivenAffinities:
        return GivenAffinities(batch[TAUGHT], self.offsets)


class ScriptedTeacher(GivenTeacher):
    """A TorchScript module that runs on the patch, in tiles of the shape that it takes.

    Args:
        config: of the teacher.
        file: the module.
        patch: voxels of raw that a sample shows.
        device: that it runs on.

    Raises:
        UserError: it cannot be loaded, does not give what the config says, or takes more than the patch.
    """

    def __init__(self, config: TorchscriptTeacherConfig, file: Path, patch: Coordinate, device: torch.device) -> None:
        self.config = config
        self._module = _loaded(file, device)
        require_patch(config, patch)
        taken, context = Coordinate(config.input_shape), Coordinate(config.context)
        self.part = Box(context, patch - context)
        self.channels = list(config.channels or range(len(config.offsets)))
        self._looked_at = False
        self._check(torch.zeros((1, 1, *taken), device=device))

    @torch.no_grad()
    @override
    def __call__(self, batch: dict[str, torch.Tensor]) -> GivenAffinities:
        raw = batch["raw"]
        low, high = self.config.intensities
        seen = raw if (low, high) == (-1, 1) else low + (raw + 1) * ((high - low) / 2)
        given = torch.empty((len(raw), len(self.channels), *self.part.shape), device=raw.device)
        for begin in self._tiles():
            end = begin + Coordinate(self.config.output_shape)
            taken = Box(begin, begin + Coordinate(self.config.input_shape))
            given[spatial(Box(begin, end))] = self._run(seen[spatial(taken)])[:, self.channels].float()
        if not self._looked_at:
            self._require_affinities(given)
        if self.config.output == "logits":
            given = given.sigmoid()
        return GivenAffinities(given.clamp(0, 1), self.config.offsets)

    def _tiles(self) -> Iterator[Coordinate]:
        """Where tiles begin, counted from the first voxel of `part`; the last ones overlap those before."""
        per_axis = [
            sorted({min(begin, extent - step) for begin in range(0, extent, step)})
            for extent, step in zip(self.part.shape, self.config.output_shape, strict=True)
        ]
        return map(Coordinate, itertools.product(*per_axis))

    def _run(self, raw: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self._module(raw.contiguous())
        return result

    @torch.no_grad()
    def _check(self, example: torch.Tensor) -> None:
        try:
            given = self._run(example)
        except CANNOT_RUN as error:
            reason = str(error).strip().splitlines()[-1]
            raise UserError(
                f"it takes no raw of (1, 1, {', '.join(map(str, self.config.input_shape))}): {reason}",
                "teacher.input_shape",
            ) from None
        if not isinstance(given, torch.Tensor) or given.dim() != 5:
            raise UserError("it gives something else than one tensor (batch, channels, z, y, x)", WHERE)
        if tuple(given.shape[2:]) != self.config.output_shape:
            raise UserError(
                f"the module gives {tuple(given.shape[2:])} voxels, not {self.config.output_shape}",
                "teacher.output_shape",
            )
        if max(self.channels) >= given.shape[1]:
            raise UserError(f"the module gives {given.shape[1]} channels, fewer than are named", "teacher.channels")

    def _require_affinities(self, given: torch.Tensor) -> None:
        """Look at what is given of the first batch: logits that are taken for affinities would teach all the same."""
        low, high = (float(value) for value in given.aminmax())
        if not math.isfinite(low) or not math.isfinite(high):
            raise UserError(f"it gives {low} to {high} of raw, which no affinity can be", WHERE)
        if self.config.output == "affinities" and not -SLACK <= low <= high <= 1 + SLACK:
            raise UserError(
                f"the module gives {low:g} to {high:g}, but affinities are 0 to 1; are they logits?", "teacher.output"
            )
        self._looked_at = True


def _loaded(file: Path, device: torch.device) -> torch.jit.ScriptModule:
    try:
        module = torch.jit.load(str(file), map_location=device)
    except (RuntimeError, ValueError, OSError):
        raise UserError(f"{file} cannot be read as a TorchScript module; export it with torch.jit", WHERE) from None
    frozen: torch.jit.ScriptModule = module.eval()
    return frozen


def script_file(config: TorchscriptTeacherConfig) -> Path:
    """The file of the module.

    Raises:
        UserError: there is none.
    """
    file = Path(config.module).expanduser()
    if not file.is_file():
        raise UserError(f"there is no file {config.module}", WHERE)
    return file


def require_patch(config: TorchscriptTeacherConfig, patch: Coordinate) -> None:
    """Make sure that a patch is as large as what the module takes.

    Raises:
        UserError: it is not.
    """
    if any(have < need for have, need in zip(patch, config.input_shape, strict=True)):
        raise UserError(
            f"the teacher takes {tuple(config.input_shape)} voxels, but a patch has {tuple(patch)}; make it as large",
            "student.training.patch_shape",
        )


def require_offsets(wanted: Sequence[Offset], given: Sequence[Offset], where: str) -> None:
    """Make sure that the teacher tells of all offsets in which the student is compared with it.

    Raises:
        UserError: names the first that it does not tell of.
    """
    for offset in wanted:
        try:
            channel_of(offset, given)
        except ValueError:
            raise UserError(
                f"no channel tells of {list(offset)}, in which the student is compared (student.distillation.offsets);"
                f" there are {', '.join(str(list(one)) for one in given)}",
                where,
            ) from None
