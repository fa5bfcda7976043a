"""One optimiser step as a gunpowder node: student and teacher see the same batch, named losses are summed."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

import gunpowder as gp
import torch
from funlib.geometry import Roi
from gunpowder.nodes.generic_train import GenericTrain
from torch import nn
from typing_extensions import override

from ...config import ScheduleConfig
from ...networks import EmbeddingNetwork
from ..objective.embedding import embed_with_layers
from ..objective.objective import Objective
from ..objective.schedule import learning_rate
from ..objective.step_clock import BACKWARD, COPY, OPTIMIZER, STUDENT, StepClock
from ..sampling.loader import BatchLoader
from ..sampling.nodes import VOXEL
from ..sampling.samples import Sampling
from .average import WeightAverage


class LoaderSource(gp.BatchProvider):
    """Hands the loader's batches to gunpowder, in the order of the iterations."""

    def __init__(self, loader: BatchLoader, clock: StepClock) -> None:
        self.loader = loader
        self.clock = clock
        self.errors: list[Exception] = []

    @override
    def setup(self) -> None:
        for key, spec in whole_batch_request(self.loader.sampling).items():
            self.provides(key, gp.ArraySpec(spec.roi, VOXEL))

    @override
    def provide(self, request: gp.BatchRequest) -> gp.Batch:
        try:
            with self.clock.data():
                arrays = self.loader.next()
        except Exception as error:
            self.errors.append(error)
            raise
        batch = gp.Batch()
        for name, key in self.loader.sampling.keys.items():
            batch[key] = gp.Array(arrays[name], gp.ArraySpec(request[key].roi, VOXEL))
        return batch


@dataclass
class StepResult:
    """Losses and pictures of the last step.

    Attributes:
        terms: value of every loss term, their weighted sum as `loss`, and the gradient's norm and the learning rate.
        weights: by which each loss term entered the sum.
        raw: (z, y, x) of the first sample, the part that was embedded.
        targets: (k, z, y, x) of the first sample.
        embedding: (d, z, y, x) of the first sample.
    """

    terms: dict[str, float] = field(default_factory=dict)
    weights: dict[str, float] = field(default_factory=dict)
    raw: torch.Tensor | None = None
    targets: torch.Tensor | None = None
    embedding: torch.Tensor | None = None


@dataclass(frozen=True)
class LearningGroup:
    """Parameters that learn at a rate of their own, and whose gradient is clipped by itself.

    Attributes:
        parameters: of one network, and of what only the training has of it.
        schedule: the training's, with the rate of this group.
    """

    parameters: list[nn.Parameter]
    schedule: ScheduleConfig


def learning_groups(network: nn.Module, objective: Objective, schedule: ScheduleConfig) -> list[LearningGroup]:
    """The trained network with what the training adds to it, then a teacher that goes on learning, if there is one."""
    of_teacher = objective.teacher_parameters
    elsewhere = {id(parameter) for parameter in of_teacher}
    own = [
        parameter
        for module in (network, objective)
        for parameter in module.parameters()
        if parameter.requires_grad and id(parameter) not in elsewhere
    ]
    groups = [LearningGroup(own, schedule)]
    if of_teacher:
        assert objective.distiller is not None
        rate = objective.distiller.config.teacher_learning_rate
        groups.append(LearningGroup(of_teacher, schedule.model_copy(update={"learning_rate": rate})))
    return groups


class TrainStep(GenericTrain):
    """gunpowder's training node for an embedding network.

    It keeps what a checkpoint needs: network, average of its weights, objective (with its distillation state),
    optimiser and gradient scaler.

    Args:
        network: learns; on its device.
        objective: the losses, on the same device.
        schedule: learning rate, clipping, weight decay, averaging.
        autocast: reduced precision, or None.
        keys: the arrays of a batch, by their names.
    """

    def __init__(
        self,
        network: EmbeddingNetwork,
        objective: Objective,
        schedule: ScheduleConfig,
        autocast: torch.dtype | None,
        keys: Mapping[str, gp.ArrayKey],
    ) -> None:
        super().__init__(inputs=dict(keys), outputs={}, gradients={})
        self.keys = dict(keys)
        self.network = network
        self.objective = objective
        self.schedule = schedule
        self.autocast = autocast
        self.device = next(network.parameters()).device
        self.groups = learning_groups(network, objective, schedule)
        self.optimizer = torch.optim.Adam(
            [{"params": group.parameters, "lr": group.schedule.learning_rate} for group in self.groups],
            weight_decay=schedule.weight_decay,
        )
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=autocast == torch.float16)
        self.average = WeightAverage(network, schedule.average) if schedule.average else None
        self.iteration = 0
        self.result = StepResult()
        self.clock = StepClock(self.device)

    @contextmanager
    def kept_weights(self) -> Iterator[Mapping[str, torch.Tensor] | None]:
        """The network as it is validated and kept, within this context: the average's weights if there is one. Gives
        those that learn, if they are others.
        """
        if self.average is None:
            yield None
            return
        with self.average.in_place() as learning:
            yield learning

    def train_step(self, batch: gp.Batch, request: gp.BatchRequest) -> None:
        """One step on a batch; gunpowder calls it."""
        part = self.clock.part
        with part(COPY):
            tensors = {name: torch.from_numpy(batch[key].data).to(self.device) for name, key in self.keys.items()}
        rates = [learning_rate(group.schedule, self.iteration) for group in self.groups]
        for group, rate in zip(self.optimizer.param_groups, rates, strict=True):
            group["lr"] = rate
        self.network.train()
        self.optimizer.zero_grad(set_to_none=True)
        with part(STUDENT):
            embedding, layers = embed_with_layers(self.network, tensors["raw"], self.autocast, self.objective.layers)
        loss, terms = self.objective(embedding, layers, tensors, self.iteration, part)
        with part(BACKWARD):
            self.scaler.scale(loss).backward()
        with part(OPTIMIZER):
            self.scaler.unscale_(self.optimizer)
            most = self.schedule.gradient_clip or math.inf
            norms = [torch.nn.utils.clip_grad_norm_(group.parameters, most) for group in self.groups]
            batch.loss = float(loss.detach())
            if math.isfinite(batch.loss):
                self.scaler.step(self.optimizer)
                self.scaler.update()
                if self.average is not None:
                    self.average.update(self.iteration)
        weights = self.objective.weights(self.iteration)
        self.iteration += 1
        batch.iteration = self.iteration
        values = {"loss": batch.loss, **{name: float(value) for name, value in terms.items()}}
        self.result = StepResult(
            terms={**values, "gradient_norm": float(norms[0]), "learning_rate": rates[0]},
            weights=weights,
            raw=tensors["raw"][0, 0],
            targets=tensors["affinities"][0],
            embedding=embedding[0].detach(),
        )


def whole_batch_request(sampling: Sampling) -> gp.BatchRequest:
    """The request for one training step. Its seed is fixed, since the loader has drawn all that is random."""
    request = gp.BatchRequest(random_seed=0)
    for name, key in sampling.keys.items():
        if name == "raw":
            request[key] = gp.ArraySpec(Roi((0, 0, 0), sampling.patch))
        else:
            request[key] = gp.ArraySpec(Roi(sampling.output.begin, sampling.output.shape))
    return request
