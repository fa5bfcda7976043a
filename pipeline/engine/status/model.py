"""What can be said about a block-wise run at one moment, as plain values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum


class StageState(Enum):
    """The state of a stage."""

    NOT_BEGUN = "not begun"
    WAITING = "waiting"
    """Its blocks need blocks of an earlier stage that runs at the same time."""
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    """No driver works on it, and blocks have failed or the stage ended early."""
    STOPPED = "stopped"
    """No driver works on it, it is not done, and nothing failed: its driver was stopped or killed."""
    STALE = "stale"
    """Its output was made with other settings or inputs than the config now gives."""


class DriverState(Enum):
    """The state of the driver."""

    NONE = "none has begun"
    WORKS = "works"
    BETWEEN = "lives, between block-wise stages"
    GONE = "is gone"
    UNKNOWN = "may live: this file system does not show the locks of other machines"


class WorkerState(Enum):
    """The state of a worker; those that somebody should look at come first."""

    DIED = "died"
    """Its process ended and left no reason."""
    LEFT = "left"
    """It gave its block back and ended, for a reason that it noted."""
    SLOW = "slow"
    """Its block takes much longer than any before."""
    BUSY = "busy"
    IDLE = "waiting"
    """It waits for a block."""
    ORPHANED = "left behind"
    """Its driver is gone, and so it is or will be."""
    REPLACED = "replaced"
    """Another job goes on in its place."""
    DONE = "done"

    @property
    def is_trouble(self) -> bool:
        """Whether somebody should look at it."""
        return self in (WorkerState.DIED, WorkerState.LEFT, WorkerState.SLOW)

    @property
    def is_present(self) -> bool:
        """Whether it works, or could."""
        return self in (WorkerState.SLOW, WorkerState.BUSY, WorkerState.IDLE)


@dataclass(frozen=True)
class WorkerStatus:
    """A worker of a stage.

    Attributes:
        stage: name of the task that it works on.
        worker, host, process, job, log: as in its `WorkerRecord`.
        state: of it.
        reason: why it left, also if it was replaced; empty otherwise.
        blocks: indices of the blocks under way, those begun first in front.
        block: the first of them; None if there is none.
        block_seconds: how long that one has been under way; 0 if there is none.
        done, failed: blocks that it has finished.
        memory: its peak in bytes.
        heard: when it last said something, in seconds since 1970.
    """

    stage: str
    worker: str
    host: str
    process: int
    job: str | None
    log: str
    state: WorkerState
    reason: str
    blocks: tuple[int, ...]
    block: int | None
    block_seconds: float
    done: int
    failed: int
    memory: int
    heard: float


@dataclass(frozen=True)
class FailureStatus:
    """A failed block.

    Attributes:
        stage: name of the task.
        block: its index.
        error: type and message, one line.
        description: place in nanometres and voxels, traceback, and the command that shows it, in several lines.
        logs: where workers of the stage print.
    """

    stage: str
    block: int
    error: str
    description: str
    logs: str


@dataclass(frozen=True)
class Pace:
    """How fast blocks get done.

    Attributes:
        blocks: per second, since the driver began.
        recent_blocks: per second, over the last minutes; None unless somebody watched.
        seconds_left: until all blocks are done; None if that cannot be told.
        end: when that will be, in seconds since 1970; None likewise.
    """

    blocks: float
    recent_blocks: float | None
    seconds_left: float | None
    end: float | None


@dataclass(frozen=True)
class StageStatus:
    """A block task, or a step of the driver, which counts as one block.

    Attributes:
        name: of the task.
        stage: of the stage that it belongs to, as in `summary.json`.
        script: workflow script that runs it.
        output: where its output lies.
        state: of it.
        note: what else there is to say, or empty.
        blocks, done, empty, running, failed: blocks; `empty` ones need no work and are not in `done`.
        voxels: of all blocks.
        began: when the driver at work began with it; None if none is.
        pace: of the driver at work; None if there is nothing to tell yet.
        took: seconds that the driver needed which did the last of it, of `summary.json`; None if that does not tell.
        took_voxels: how many it did in that time; 0 likewise.
        peak_memory: bytes of the worker that needed most; 0 if unknown.
        longest_block: seconds of the slowest block so far; 0 if unknown.
    """

    name: str
    stage: str
    script: str
    output: str
    state: StageState
    note: str = ""
    blocks: int = 0
    done: int = 0
    empty: int = 0
    running: int = 0
    failed: int = 0
    voxels: int = 0
    began: float | None = None
    pace: Pace | None = None
    took: float | None = None
    took_voxels: int = 0
    peak_memory: int = 0
    longest_block: float = 0.0

    @property
    def left(self) -> int:
        """Blocks that nobody has begun, or that wait for another try."""
        return max(0, self.blocks - self.done - self.empty - self.running - self.failed)

    @property
    def fraction(self) -> float:
        """Of the blocks, those that are done or empty."""
        return (self.done + self.empty) / self.blocks if self.blocks else 0.0

    @property
    def voxels_per_block(self) -> float:
        """Voxels of a block, on average."""
        return self.voxels / self.blocks if self.blocks else 0.0

    @property
    def voxels_per_second(self) -> float | None:
        """Of the driver at work, or of the one that did the last of it; None if unknown."""
        if self.pace is not None:
            return self.pace.blocks * self.voxels_per_block
        return self.took_voxels / self.took if self.took else None

    @property
    def is_begun(self) -> bool:
        """Whether there is any output."""
        return self.state is not StageState.NOT_BEGUN

    @property
    def is_at_work(self) -> bool:
        """Whether a driver works on it."""
        return self.state in (StageState.WAITING, StageState.RUNNING)


@dataclass(frozen=True)
class TrainingStatus:
    """A training.

    Attributes:
        name: of the network, `teacher` or `student`, or `paraphraser`.
        script: workflow script that does it.
        output: folder of the checkpoints.
        state: of it.
        note: what else there is to say, or empty: why it failed.
        done: iterations done; while nobody trains, those that a checkpoint has.
        iterations: in all.
        per_second: iterations of the process at work; None if there is nothing to tell yet.
        seconds_left: until all are done; None likewise.
        end: when that will be, in seconds since 1970; None likewise.
        loss: of the last iteration; None if unknown.
        validated: iteration of the last validation; 0 if there was none.
        validation: its scores.
    """

    name: str
    script: str
    output: str
    state: StageState
    note: str = ""
    done: int = 0
    iterations: int = 0
    per_second: float | None = None
    seconds_left: float | None = None
    end: float | None = None
    loss: float | None = None
    validated: int = 0
    validation: Mapping[str, float] = field(default_factory=dict)

    @property
    def fraction(self) -> float:
        """Of the iterations, those that are done."""
        return min(1.0, self.done / self.iterations) if self.iterations else 0.0

    @property
    def is_begun(self) -> bool:
        """Whether there is anything of it."""
        return self.state is not StageState.NOT_BEGUN


@dataclass(frozen=True)
class DriverStatus:
    """The process that works on the run, or did.

    Attributes:
        state: of it.
        host, process: where it runs or ran; empty and None if unknown.
        job: its own batch job; None if it is none.
        executor: where it has blocks computed; empty if unknown.
        began: when it began with what it works on, in seconds since 1970; None if unknown.
        ended: when it was through; None if it is not, or was killed.
        all_steps: it does all steps of the run, as `run_all.py` does.
    """

    state: DriverState
    host: str = ""
    process: int | None = None
    job: str | None = None
    executor: str = ""
    began: float | None = None
    ended: float | None = None
    all_steps: bool = False


@dataclass(frozen=True)
class RunStatus:
    """A run at one moment.

    Attributes:
        directory: of the run.
        config: path of the config as run.
        time: the moment, in seconds since 1970.
        driver: who works on it.
        stages: upstream ones first.
        workers: of all stages, those that ask for a look first.
        failures: the newest failed blocks, newest first.
        command: what to type to go on; empty while a driver works on blocks, or when all is done.
        trainings: in the order of work.
    """

    directory: str
    config: str
    time: float
    driver: DriverStatus
    stages: tuple[StageStatus, ...]
    workers: tuple[WorkerStatus, ...]
    failures: tuple[FailureStatus, ...]
    command: str
    trainings: tuple[TrainingStatus, ...] = ()

    @property
    def goes_on(self) -> bool:
        """Whether a driver works on it, as far as one can tell; with a failure it is through."""
        if self.driver.state is DriverState.BETWEEN:
            return not any(stage.state in (StageState.FAILED, StageState.STOPPED) for stage in self.stages)
        return self.driver.state in (DriverState.WORKS, DriverState.UNKNOWN)

    @property
    def is_begun(self) -> bool:
        """Whether there is anything of it."""
        return any(part.is_begun for part in self.parts)

    @property
    def parts(self) -> tuple[TrainingStatus | StageStatus, ...]:
        """Trainings and stages, in the order of work."""
        return (*self.trainings, *self.stages)

    @property
    def is_done(self) -> bool:
        """Whether every stage is."""
        return all(stage.state is StageState.DONE for stage in self.stages)

    @property
    def is_over(self) -> bool:
        """Whether it has begun, and its blocks will not get more by themselves."""
        return self.is_done or (not self.goes_on and self.is_begun)
