"""What a network is trained for: supervision by labels, and for a student what it copies from its teacher."""

from __future__ import annotations

import torch
from torch import nn

from ...config import Offset, TargetsConfig
from ...networks import EmbeddingNetwork
from .affinity_distiller import AffinityDistiller
from .descriptor_head import LAYER, DescriptorHead
from .distiller import Distiller, Terms
from .embedding import patch_of
from .label_loss import LabelLoss
from .step_clock import SUPERVISED, Part, untimed
from .views import Layers


class Objective(nn.Module):
    """The loss of a training step.

    Args:
        targets: offsets of the affinities in a batch, and how their pairs are weighted.
        network: that learns.
        distiller: for a student that learns from a teacher.
        offsets: those of the targets' offsets that are supervised. Default: all at which the network has affinities.
        descriptors: learns local shape descriptors beside.
    """

    def __init__(
        self,
        targets: TargetsConfig,
        network: EmbeddingNetwork,
        distiller: Distiller | AffinityDistiller | None = None,
        offsets: tuple[Offset, ...] | None = None,
        descriptors: DescriptorHead | None = None,
    ) -> None:
        super().__init__()
        self.supervised = LabelLoss(targets, network, offsets)
        self._network = (network,)  # in a tuple, so that torch does not take it for a part of this module
        self.distiller = distiller
        self.descriptors = descriptors

    @property
    def teacher_parameters(self) -> list[nn.Parameter]:
        """Those of a teacher that goes on learning beside the student; otherwise none."""
        teacher = self.distiller.learning_teacher if isinstance(self.distiller, Distiller) else None
        return [] if teacher is None else list(teacher.parameters())

    @property
    def layers(self) -> tuple[str, ...]:
        """Tapped layers of the trained network that the loss needs."""
        of_distiller = () if self.distiller is None else self.distiller.layers
        return of_distiller if self.descriptors is None else tuple(dict.fromkeys((*of_distiller, LAYER)))

    def weights(self, iteration: int) -> dict[str, float]:
        """The weight of each term in an iteration."""
        weights = {} if self.descriptors is None else {"descriptors": self.descriptors.weight}
        if self.distiller is None:
            return {"supervised": 1.0, **weights}
        distilled = self.distiller.weights(iteration)
        return {"supervised": self.distiller.config.supervised_weight, **weights, **distilled}

    def forward(
        self,
        embedding: torch.Tensor,
        layers: Layers,
        batch: dict[str, torch.Tensor],
        iteration: int,
        part: Part = untimed,
    ) -> tuple[torch.Tensor, Terms]:
        """The loss and its named, unweighted terms.

        Args:
            embedding: (b, d, z, y, x) float32, as the network gives it.
            layers: tapped features.
            batch: `raw` (b, 1, z, y, x), `labels` (b, z, y, x), `affinities` and `mask` (b, k, z, y, x). The mask is 0
                in unlabelled samples, which leaves them out of the supervised loss. `taught` of affinities on disk,
                `descriptors` (b, c, z, y, x) where they are learnt.
            iteration: counted from 0.
            part: in whose contexts the parts of the step run.
        """
        with part(SUPERVISED):
            total = self.supervised(embedding, batch["affinities"], batch["mask"], batch["labels"])
        terms = {"supervised": total.detach()}
        if self.distiller is not None:
            embedded = patch_of(self._network[0], embedding)
            distilled, named = self.distiller(embedded, layers, batch, iteration, part)
            terms.update(named)
            total = self.distiller.config.supervised_weight * total + distilled
        if self.descriptors is not None:
            with part(SUPERVISED):
                shapes = self.descriptors(layers[LAYER], batch["descriptors"], batch["labels"])
            terms["descriptors"] = shapes.detach()
            total = total + self.descriptors.weight * shapes
        return total, terms
