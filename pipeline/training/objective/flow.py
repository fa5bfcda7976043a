"""Graph flow in a training: which layers can be compared, and the terms of a batch."""

from __future__ import annotations

import torch
from torch import nn

from ...command_names import name_of
from ...config import GraphFlowConfig
from ...distillation import GraphFlowLoss
from ...errors import UserError
from ...networks import EmbeddingNetwork
from .views import Layers, find_tap

WHERE = "student.distillation.graph_flow"


class FlowTerms(nn.Module):
    """Graph flow between two tapped layers of both networks.

    Args:
        config: layers, patch, weights, variation.
        paraphrasers: a trained one for each of the layers, no part of this module's state; None compares the teacher's
            features as they are.

    Attributes:
        weights: of the terms, by name.
        told: nothing beside the terms.

    Raises:
        UserError: paraphrasers are configured, but there are none.
    """

    def __init__(self, config: GraphFlowConfig, paraphrasers: nn.ModuleDict | None) -> None:
        super().__init__()
        if config.paraphraser is not None and paraphrasers is None:
            training = name_of("00b_train_paraphraser.py")
            raise UserError(f"there is no trained paraphraser; {training} trains it", f"{WHERE}.paraphraser")
        self.layers = config.layers
        self.loss = GraphFlowLoss(config.patch, config.vertex_weight, config.edge_weight, config.variation)
        self.weights = self.loss.weights
        self.told: dict[str, torch.Tensor] = {}
        self._paraphrasers = (paraphrasers,)  # in a tuple, so that torch does not take it for a part of this module

    def forward(self, student: Layers, teacher: Layers) -> dict[str, torch.Tensor]:
        """The terms by name, of features (b, c, *size) by layer."""
        (paraphrasers,) = self._paraphrasers
        with torch.no_grad():
            shown = [
                teacher[layer] if paraphrasers is None else paraphrasers[layer](teacher[layer]) for layer in self.layers
            ]
        learnt = [student[layer] for layer in self.layers]
        return self.loss.terms((learnt[0], learnt[1]), (shown[0], shown[1]))


def flow_channels(
    config: GraphFlowConfig, student: EmbeddingNetwork, teacher: EmbeddingNetwork
) -> dict[str, tuple[int, int]]:
    """Channels of teacher and student in each of the two layers.

    Raises:
        UserError: a network does not have a layer, the student's layers have different channels, or the teacher's have
            others and no paraphraser is configured.
    """
    where = f"{WHERE}.layers"
    channels = {
        name: (find_tap(teacher, name, where).channels, find_tap(student, name, where).channels)
        for name in config.layers
    }
    first, second = config.layers
    if channels[first][1] != channels[second][1]:
        raise UserError(
            f"the student's {first} has {channels[first][1]} channels and its {second} {channels[second][1]}; graph "
            "flow needs two layers with as many as each other",
            where,
        )
    if config.paraphraser is None and any(taught != learnt for taught, learnt in channels.values()):
        raise UserError(
            f"the teacher's {first} and {second} have {channels[first][0]} and {channels[second][0]} channels, the "
            f"student's {channels[first][1]}; only a paraphraser makes them comparable",
            f"{WHERE}.paraphraser",
        )
    return channels
