"""What a config of separate images must not ask for: whatever joins one image with the next."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from .base import Offset
from .networks import NetworkConfig, ResidualUnetConfig, SectionUnetConfig

if TYPE_CHECKING:
    from .root import Config

IN_PLANE_NEIGHBOURS: tuple[Offset, ...] = ((0, -1, 0), (0, 0, -1))
"""The nearest-neighbour offsets of an image in a stack."""


def refuse_what_joins_images(config: Config) -> None:
    """Make sure that nothing in the config reaches from one section to the next.

    Raises:
        ValueError: names the first key that does, and what would be right.
    """
    for reason in _reasons(config):
        raise ValueError(f"{reason}, because volumes.images says that the sections are separate images")


def _reasons(config: Config) -> Iterator[str]:
    yield from _offsets(config)
    yield from _networks(config)
    if config.targets.erosion > 0 and not config.targets.erosion_in_plane:
        yield "targets.erosion_in_plane must be true"
    if config.agglomerate.method != "global":
        yield "agglomerate.method must be global"
    augment = config.augment
    if augment.transpose_all:
        yield "augment.transpose_all must be false"
    if augment.elastic is not None and augment.elastic.jitter[0] > 0:
        yield "augment.elastic.jitter must be 0 along z"
    for name in ("shift_sections", "missing_sections"):
        if getattr(augment, name) > 0:
            yield f"augment.{name} must be 0"


def _offsets(config: Config) -> Iterator[str]:
    distillation = config.student.distillation
    given = {
        "predict.offsets": config.predict.offsets,
        "targets.offsets": config.targets.offsets,
        "student.distillation.offsets": (distillation and distillation.offsets) or (),
    }
    for name, offsets in given.items():
        for offset in offsets:
            if offset[0] != 0:
                yield f"{name} must have z = 0, not {list(offset)}"


def _networks(config: Config) -> Iterator[str]:
    networks: dict[str, NetworkConfig] = {"student": config.student.network}
    if config.teacher is not None:
        networks["teacher"] = config.teacher.network
    for role, network in networks.items():
        if not sees_one_section(network):
            yield f"{role}.network must be a residual_unet with dimensions 2 (or a section_unet with sections 1)"


def sees_one_section(network: NetworkConfig) -> bool:
    """Whether a network embeds every section by itself."""
    if isinstance(network, SectionUnetConfig):
        return network.sections == 1
    return isinstance(network, ResidualUnetConfig) and network.dimensions == 2
