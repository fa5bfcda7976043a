"""Networks whose affinities are channels of their own give them at their own offsets alone; others embed voxels, whose
cosines are affinities at any offset.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from .base import Offset
from .networks import NetworkConfig

if TYPE_CHECKING:
    from .root import Config


def taught_offsets(network: NetworkConfig, offsets: Sequence[Offset]) -> tuple[Offset, ...]:
    """Those of some offsets at which labels can teach a network: all that it gives affinities at."""
    return tuple(offset for offset in offsets if network.gives(offset))


def compared_offsets(config: Config) -> tuple[Offset, ...]:
    """Offsets of the affinities in which a student is compared with its teacher."""
    distillation, student = config.student.distillation, config.student
    chosen = None if distillation is None else distillation.offsets
    return chosen or taught_offsets(student.network, student.offsets or config.targets.offsets)


def missing_affinities(config: Config) -> Iterator[str]:
    """Why the networks cannot do what the rest of a config asks of them, one reason after another."""
    networks: dict[str, NetworkConfig] = {"student": config.student.network}
    if config.network_teacher is not None:
        networks["teacher"] = config.network_teacher.network
    for role, network in networks.items():
        for offset in network.affinity_offsets:
            if offset not in config.targets.offsets:
                yield (
                    f"{role}.network.affinity_offsets names {list(offset)}, which is not in targets.offsets, so that "
                    "no label would teach it"
                )
    yield from _untaught(config)
    predicting = networks.get(config.predict.network)
    for offset in config.predict.offsets:
        if predicting is not None and not predicting.gives(offset):
            yield (
                f"predict.offsets names {list(offset)}, which {config.predict.network}.network does not give: it has "
                "no embedding, and its affinity_offsets do not name it"
            )
    yield from _missing_for_validation(config, networks)
    yield from _missing_for_distillation(config)


def _untaught(config: Config) -> Iterator[str]:
    """What nothing would teach the student: neither labels at their offsets nor a teacher where both are compared."""
    network, distillation = config.student.network, config.student.distillation
    by_labels = config.student.offsets or config.targets.offsets
    if not taught_offsets(network, by_labels):
        yield "student.offsets names no offset that student.network gives: it has no embedding, only affinity_offsets"
    by_teacher = compared_offsets(config) if distillation is not None and distillation.compares_affinities else ()
    for offset in network.affinity_offsets:
        if offset not in (*by_labels, *by_teacher):
            yield (
                f"student.network.affinity_offsets names {list(offset)}, which nothing would teach: student.offsets"
                " does not name it, and no teacher is compared there"
            )


def _missing_for_validation(config: Config, networks: Mapping[str, NetworkConfig]) -> Iterator[str]:
    """What the fragments lack that validation makes during the training of a network, whether it predicts or not."""
    offsets = config.neighbours if config.fragments.method == "watershed" else config.predict.offsets
    teacher = config.network_teacher
    for role, network in networks.items() if config.volumes.validate_ is not None else ():
        is_trained = role == "student" or (teacher is not None and teacher.checkpoint is None)
        for offset in offsets if is_trained else ():
            if not network.gives(offset):
                yield (
                    f"{role}.network does not give affinities at {list(offset)}, of which volumes.validate makes"
                    " fragments during its training; add it to affinity_offsets, or set embedding_channels above 0"
                )


def _missing_for_distillation(config: Config) -> Iterator[str]:
    distillation, teacher = config.student.distillation, config.network_teacher
    if distillation is None or config.teacher is None:
        return
    networks = [("student", config.student.network)]
    if teacher is not None:
        networks.append(("teacher", teacher.network))
    for role, network in networks:
        if distillation.compares_embeddings and not network.embedding_channels:
            yield (
                f"{role}.network.embedding_channels is 0, but the weights of node, edge, inter-image and cross-section"
                " terms compare embeddings; set them to 0, or embedding_channels above 0"
            )
        for offset in compared_offsets(config):
            if distillation.compares_affinities and not network.gives(offset):
                yield (
                    f"student.distillation compares affinities at {list(offset)}, which {role}.network does not give; "
                    "choose others with student.distillation.offsets, or add it to affinity_offsets"
                )
