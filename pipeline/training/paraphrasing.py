"""The stage between teacher and student: paraphrasers learn to reconstruct the teacher's features."""

from __future__ import annotations

import logging
import math
import threading
import time
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from ..command_names import next_command
from ..config import ParaphraserConfig, ScheduleConfig
from ..distillation import Paraphraser
from ..errors import UserError
from ..units import counted, duration
from .objective.embedding import embed_with_layers
from .objective.flow import flow_channels
from .objective.paraphraser_files import (
    WHERE,
    build_paraphrasers,
    paraphraser_path,
    read_paraphrasers,
    write_paraphrasers,
)
from .objective.schedule import learning_rate
from .objective.views import View, as_sections
from .sampling.loader import BatchLoader
from .sampling.samples import Sampling
from .steps.logs import TrainingLog
from .steps.loop import stop_on_signal
from .steps.settings import refuse_changes
from .steps.training_setup import Training

logger = logging.getLogger(__name__)

DECIDING = (
    "seed",
    "augment.",
    "volumes.",
    "targets.",
    "teacher.checkpoint",
    "student.network.",
    "student.training.batch_size",
    "student.training.patch_shape",
    "student.training.minimum_labelled",
    "student.distillation.unlabelled.share",
    "student.distillation.graph_flow.layers",
    "student.distillation.graph_flow.paraphraser.",
)
"""Settings of the student's training, or beginnings of them, that decide what a paraphraser becomes."""


def ensure_paraphraser(student: Training) -> Path | None:
    """The trained paraphrasers of a student, or None if it needs none; trains them, or continues, where necessary.

    Args:
        student: the training that needs them, with its teacher.

    Raises:
        UserError: the config, the data or the environment does not allow it.
        KeyboardInterrupt: Ctrl-C or SIGTERM; what was learnt is saved.
    """
    config = paraphraser_config(student)
    if config is None:
        return None
    path, settings = paraphraser_path(student.run), deciding_settings(student)
    if config.checkpoint is not None:
        named = _named(student, config.checkpoint)
        logger.info("paraphraser: using %s (%s.checkpoint), nothing to train", named, WHERE)
        return named
    stored = read_paraphrasers(path) if path.exists() else None
    if stored is not None:
        refuse_changes(stored["settings"], settings, path)
        if stored["iteration"] >= config.iterations:
            logger.info(
                "paraphraser: finished already, %s has %s; skipped", path, counted(stored["iteration"], "iteration")
            )
            return path
    done = 0 if stored is None else stored["iteration"]
    logger.info("paraphraser: training it first, iterations %d to %d", done, config.iterations)
    _ParaphraserTraining.of(student, config, settings).run(stored)
    return path


def paraphraser_config(student: Training) -> ParaphraserConfig | None:
    """The config of the paraphrasers that a student needs, or None if it needs none."""
    distillation = student.distillation
    return None if distillation is None or distillation.graph_flow is None else distillation.graph_flow.paraphraser


def deciding_settings(student: Training) -> dict[str, str]:
    """Dotted config paths and values of all that decides what the paraphrasers become."""
    return {path: value for path, value in student.settings.items() if path.startswith(DECIDING)}


def _named(student: Training, checkpoint: str) -> Path:
    for candidate in (Path(checkpoint).expanduser(), student.run.directory / checkpoint):
        if candidate.is_file():
            return candidate
    raise UserError(f"there is no paraphraser {checkpoint}", f"{WHERE}.checkpoint")


@dataclass
class _ParaphraserTraining:
    """The parts of a running training of paraphrasers."""

    training: Training
    config: ParaphraserConfig
    settings: dict[str, str]
    sampling: Sampling
    teacher: View
    sections: bool
    channels: dict[str, tuple[int, int]]
    paraphrasers: nn.ModuleDict
    optimizer: torch.optim.Optimizer

    @classmethod
    def of(cls, student: Training, config: ParaphraserConfig, settings: dict[str, str]) -> _ParaphraserTraining:
        """Everything checked and built, from the config's seed."""
        network = student.build_network()
        sampling, views = replace(student.sampling(network), described=None), student.views(network)
        assert student.distillation is not None and student.distillation.graph_flow is not None
        channels = flow_channels(student.distillation.graph_flow, network, views[1].network)
        sections = student.compares_sections(*views)
        torch.manual_seed(student.run.config.seed)
        paraphrasers = build_paraphrasers(channels, 2 if sections else 3).to(student.device)
        optimizer = torch.optim.Adam(paraphrasers.parameters(), lr=config.learning_rate)
        return cls(student, config, settings, sampling, views[1], sections, channels, paraphrasers, optimizer)

    def run(self, stored: dict[str, Any] | None) -> None:
        """Take all remaining steps, after those of a stored training of the same settings."""
        self.iteration, self.began = 0, time.monotonic()
        if stored is not None:
            self.iteration = stored["iteration"]
            self.paraphrasers.load_state_dict(stored["model"])
            self.optimizer.load_state_dict(stored["optimizer"])
        self.training.run.save_config()
        directory, total = paraphraser_path(self.training.run).parent, self.config.iterations
        with (
            BatchLoader(self.sampling, self.iteration) as loader,
            TrainingLog(directory, self.iteration, total, "paraphraser") as log,
            stop_on_signal() as stop,
        ):
            unexplained = self._steps(loader, log, stop)
        if stop.is_set() and self.iteration < total:
            raise KeyboardInterrupt
        seconds, done = time.monotonic() - self.began, self.iteration - (stored["iteration"] if stored else 0)
        shares = ", ".join(f"{share:.1%} of {layer}" for layer, share in unexplained.items())
        following = next_command("01_distill.py", self.training.run.directory / "config.json")
        logger.info(
            "paraphraser: wrote %s, %s in %s (%.3g/s), unexplained: %s%s",
            paraphraser_path(self.training.run),
            counted(done, "iteration"),
            duration(seconds),
            done / seconds,
            shares,
            f"; next: {following}" if following else "",
        )

    def _steps(self, loader: BatchLoader, log: TrainingLog, stop: threading.Event) -> dict[str, float]:
        schedule = self.training.section.training
        unexplained: dict[str, float] = {}
        while self.iteration < self.config.iterations and not stop.is_set():
            loss, unexplained = self._step(torch.from_numpy(loader.next()["raw"]).to(self.training.device))
            if not math.isfinite(loss):
                raise UserError(
                    f"the loss is {loss} at iteration {self.iteration}; lower it and start again",
                    f"{WHERE}.learning_rate",
                )
            log.advance(loss)
            last = self.iteration == self.config.iterations
            if self.iteration % schedule.log_every == 0 or self.iteration == 1 or last:
                named = {f"unexplained_{layer}": share for layer, share in unexplained.items()}
                log.scalars(self.iteration, {"loss": loss, **named}, {}, time.monotonic() - self.began)
            if self.iteration % schedule.checkpoint_every == 0 or stop.is_set() or last:
                self._save(finished=last)
        return unexplained

    @cached_property
    def schedule(self) -> ScheduleConfig:
        """That of the student with steps and learning rate of its own."""
        own = self.config.model_dump(include={"iterations", "learning_rate"})
        return self.training.section.training.model_copy(update={**own, "schedule": "cosine"})

    def _step(self, raw: torch.Tensor) -> tuple[float, dict[str, float]]:
        """The loss of a step, and by layer the share of the features' variance that stays unexplained."""
        with torch.no_grad():
            _, features = embed_with_layers(self.teacher.network, raw, self.training.autocast, tuple(self.channels))
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.schedule, self.iteration)
        self.optimizer.zero_grad(set_to_none=True)
        losses, unexplained = [], {}
        for layer, paraphraser in self.paraphrasers.items():
            shown = as_sections(features[layer]) if self.sections else features[layer]
            losses.append(cast(Paraphraser, paraphraser).reconstruction_loss(shown))
            unexplained[layer] = float(losses[-1].detach() / shown.var().clamp(min=1e-12))
        loss = torch.stack(losses).sum()
        loss.backward()
        self.optimizer.step()
        self.iteration += 1
        return float(loss.detach()), unexplained

    def _save(self, finished: bool) -> None:
        if finished:
            for paraphraser in self.paraphrasers.values():
                cast(Paraphraser, paraphraser).freeze()
        document = {
            "settings": self.settings,
            "channels": {layer: list(pair) for layer, pair in self.channels.items()},
            "dimensions": 2 if self.sections else 3,
            "iteration": self.iteration,
            "model": self.paraphrasers.state_dict(),
            "optimizer": self.optimizer.state_dict(),
        }
        write_paraphrasers(paraphraser_path(self.training.run), document)
