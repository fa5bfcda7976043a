"""The training loop: steps, logs, validation, checkpoints, and a clean end whatever ends it."""

from __future__ import annotations

import logging
import math
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import gunpowder as gp
from funlib.geometry import Coordinate

from ...config import taught_offsets
from ...distillation import cosine_to_affinity, padded_affinities
from ...errors import UserError
from ...stop_signals import stop_signals_call
from ..objective.embedding import patch_of
from ..objective.step_clock import STEP, Split
from ..objective.validation import ValidationStopped, check_validation, validate
from ..sampling.loader import BatchLoader
from ..sampling.regions import LabelledRegion, validation_region
from ..sampling.samples import Sampling
from ..sampling.waiting import STARVED, advice
from .logs import TrainingLog
from .pictures import sample_picture
from .state import StoredTraining, newest_checkpoint, save_best, save_state
from .step import LoaderSource, TrainStep, whole_batch_request
from .training_setup import Training

logger = logging.getLogger(__name__)


@dataclass
class TrainingProgress:
    """What the loop remembers from one run to the next.

    Attributes:
        seconds: time spent in all runs of this training.
        best: scores of the best validation so far, and its `iteration`.
        judged_by: what the scores of the best depend on and may change between two runs: the labels that do not count,
            and the extent that is looked at.
        step: where the time of a step went in the last run: `steps` measured, `milliseconds` of a step and of each
            part, `waiting_for_data` as a share.
    """

    seconds: float = 0.0
    best: dict[str, float] = field(default_factory=dict)
    judged_by: list[list[int]] | None = None
    step: dict[str, Any] = field(default_factory=dict)


def train(training: Training, stored: StoredTraining | None) -> tuple[Path, TrainingProgress]:
    """Train until the configured number of iterations.

    Args:
        training: what to train.
        stored: the checkpoint to continue from, of the same settings.

    Returns:
        The newest checkpoint, and what there is to report.

    Raises:
        UserError: the config, the data or the environment does not allow it.
        KeyboardInterrupt: Ctrl-C or SIGTERM; a checkpoint has been written.
    """
    schedule = training.section.training
    network = training.build_network()
    sampling = training.sampling(network)
    objective = training.objective(network)
    held_out = validation_region(training.run)
    if held_out is not None:
        config = training.run.config
        check_validation(held_out, Coordinate(schedule.validate_shape), config.volumes.images, config.evaluate.ignore)
    start = 0 if stored is None else stored.iteration
    logger.info(
        "%s: training %s with %s parameters on %s, iterations %s to %s",
        training.role,
        training.section.network.name,
        f"{network.parameter_count():,}",
        training.device,
        f"{start:,}",
        f"{schedule.iterations:,}",
    )
    with BatchLoader(sampling, start) as loader:
        step = TrainStep(network.to(training.device), objective, schedule, training.autocast, sampling.keys)
        if stored is not None:
            stored.restore(step)
        progress = TrainingProgress() if stored is None else TrainingProgress(**stored.progress)
        with (
            TrainingLog(training.directory, start, schedule.iterations, training.role) as log,
            stop_on_signal() as stop,
        ):
            path = Loop(training, sampling, loader, step, held_out, log, progress, stop).run()
    return path, progress


@dataclass
class Loop:
    """The parts of a running training."""

    training: Training
    sampling: Sampling
    loader: BatchLoader
    step: TrainStep
    held_out: LabelledRegion | None
    log: TrainingLog
    progress: TrainingProgress
    stop: threading.Event

    def run(self) -> Path:
        """Take all remaining steps; the newest checkpoint."""
        schedule = self.training.section.training
        source = LoaderSource(self.loader, self.step.clock)
        request = whole_batch_request(self.sampling)
        saved = self.step.iteration
        self.began = time.monotonic() - self.progress.seconds
        self.recent: Split | None = None
        self.advised = False
        with gp.build(source + self.step) as pipeline:
            if saved > 0 and self._due(schedule.validate_every) and not self.log.has_validation(saved):
                self._validate()  # stopped in an earlier run
            while self.step.iteration < schedule.iterations and not self.stop.is_set():
                self._step(pipeline, source, request)
                if self._due(schedule.validate_every):
                    self._validate()
                if self._due(schedule.checkpoint_every) or self.stop.is_set():
                    self._save()
                    saved = self.step.iteration
        self._tell_split()
        if saved != self.step.iteration:
            self._save()
        if self.stop.is_set() and self.step.iteration < schedule.iterations:
            raise KeyboardInterrupt
        path = newest_checkpoint(self.training.directory)
        assert path is not None
        return path

    def _step(self, pipeline: gp.Pipeline, source: LoaderSource, request: gp.BatchRequest) -> None:
        clock = self.step.clock
        try:
            with clock.step():
                pipeline.request_batch(request)
        except gp.PipelineRequestError:
            if source.errors:
                raise source.errors[0] from None
            raise
        iteration, terms = self.step.iteration, self.step.result.terms
        if not math.isfinite(terms["loss"]):
            raise UserError(
                f"the loss is {terms['loss']} at iteration {iteration}; lower the learning rate and start again, it "
                "continues from the last checkpoint if there is one",
                f"{self.training.role}.training.learning_rate",
            )
        schedule = self.training.section.training
        self.log.advance(terms["loss"], None if self.recent is None else self.recent.waiting)
        if self._due(schedule.log_every) or iteration == 1:
            self.log.scalars(iteration, terms, self.step.result.weights, self._seconds())
            self._look_at_the_clock(iteration)
        if self._due(schedule.picture_every):
            self._draw()

    def _look_at_the_clock(self, iteration: int) -> None:
        """Log where the time goes, and warn once if too much of it goes into waiting for data."""
        self.recent = self.step.clock.recent()
        if self.recent is not None:
            self.log.split(iteration, self.recent)
        waiting = self.loader.supply.waiting
        if not self.advised and waiting is not None and waiting > STARVED:
            self.advised = True
            workers, enough = self.loader.workers, self.loader.supply.enough(self.loader.workers)
            logger.warning(
                "%s: %s", self.training.role, advice(f"{self.training.role}.training", waiting, workers, enough)
            )

    def _tell_split(self) -> None:
        split = self.step.clock.total()
        if split is None:
            return
        self.progress.step = {
            "steps": split.steps,
            "milliseconds": {name: round(1e3 * s, 3) for name, s in ((STEP, split.seconds), *split.parts.items())},
            "waiting_for_data": round(split.waiting, 4),
        }
        logger.info(
            "%s: where the time of a step went, mean of %d:\n%s", self.training.role, split.steps, split.table()
        )

    def _due(self, every: int) -> bool:
        """Whether the iteration just done is a multiple, or the last."""
        return self.step.iteration % every == 0 or self.step.iteration == self.training.section.training.iterations

    def _seconds(self) -> float:
        return time.monotonic() - self.began

    def _draw(self) -> None:
        result = self.step.result
        assert result.raw is not None and result.targets is not None and result.embedding is not None
        network = self.step.network
        offsets = taught_offsets(network.config, self.training.run.config.targets.offsets)[:3]
        patch = patch_of(network, result.embedding[None])
        affinities = cosine_to_affinity(padded_affinities(patch, offsets)[0])
        seen = result.raw[self.sampling.output.slices]
        arrays = (seen, result.targets, affinities[0], result.embedding)
        self.log.picture(
            self.step.iteration,
            "raw | target affinities | predicted affinities | embedding",
            sample_picture(*(array.float().cpu().numpy() for array in arrays)),
        )

    def _validate(self) -> None:
        from ...evaluation import loss_of

        if self.held_out is None:
            return
        schedule = self.training.section.training
        output = self.sampling.output.shape
        try:
            with self.step.kept_weights():
                scores = validate(
                    self.step.network,
                    self.held_out,
                    self.training.run.config,
                    shape=Coordinate(schedule.validate_shape),
                    tile=Coordinate(output[0] * schedule.batch_size, output[1], output[2]),
                    autocast=self.training.autocast,
                    stopped=self.stop.is_set,
                )
        except ValidationStopped:
            return
        self.log.validation(self.step.iteration, scores)
        logger.info("%s at iteration %d: %s", self.training.role, self.step.iteration, _readable(scores))
        judged_by = [sorted(self.training.run.config.evaluate.ignore), list(schedule.validate_shape)]
        if self.progress.judged_by not in (None, judged_by):
            self.progress.best = {}  # of other voxels
        self.progress.judged_by = judged_by
        if not self.progress.best or loss_of(scores) < loss_of(self.progress.best):
            self.progress.best = {"iteration": self.step.iteration, **scores}
            save_best(self.training, self.step, self._progress())

    def _save(self) -> Path:
        keep = self.training.section.training.keep_checkpoints
        return save_state(self.training, self.step, self._progress(), keep)

    def _progress(self) -> dict[str, Any]:
        self.progress.seconds = self._seconds()
        return asdict(self.progress)


def _readable(scores: dict[str, float]) -> str:
    return ", ".join(f"{name} {value:.3f}" for name, value in scores.items())


@contextmanager
def stop_on_signal() -> Iterator[threading.Event]:
    """An event that Ctrl-C or SIGTERM sets, so that the step in progress ends before the training does.

    A second Ctrl-C interrupts at once. A second SIGTERM does not: batch systems send it to all processes of a job, and
    the job's script passes its own on.
    """
    stop = threading.Event()

    def handle(number: int) -> None:
        if not stop.is_set():
            logger.info("stopping after this iteration, with a checkpoint; Ctrl-C once more stops at once, without")
        elif number == signal.SIGINT:
            raise KeyboardInterrupt
        stop.set()

    with stop_signals_call(handle):
        yield stop
