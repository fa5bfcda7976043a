"""Compare what lies on disk with what was marked as done: every block of every stage, and the graph.

Chunks are read once, in parallel, in the order of the blocks; rows of the graph are streamed. Memory: a few numbers per
block, and the blocks under way.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import Enum

import numpy as np

from ..chunks import CheckedStore
from ..errors import UserError
from ..run import Run
from ..volumes import chunks_of
from .agglomerate import agglomeration
from .audit_graph import GraphFindings, check_graph
from .fragments import FragmentsTask
from .grid import Block
from .markers import done_blocks
from .parallel import in_threads
from .predict import PredictTask
from .rag_statistics import RagTask
from .raw import open_raw
from .records import RecordTable, array_checksum
from .segment import SegmentTask, written_segmentations
from .stage import BlockTask, Stage, VolumeTask
from .tracking import Progress, progress_of, read_record


class Damage(Enum):
    """What may be wrong with a block that is marked as done."""

    MISSING = "missing"
    UNREADABLE = "unreadable"
    UNRECORDED = "no checksum"
    CHANGED = "other checksum"
    ZERO = "zero"
    NODES_WITHOUT_VOXELS = "nodes without voxels"
    VOXELS_WITHOUT_NODES = "voxels without nodes"
    EDGES_WITHOUT_NODES = "edges without nodes"


@dataclass
class StageFindings:
    """What the audit found of one stage.

    Attributes:
        stage: which.
        done: blocks marked as done.
        damaged: (z, y, x) bool over the block grid, per kind of damage.
        unsound: what is wrong with the stage as a whole, for example a lookup table; empty if nothing is.
    """

    stage: Stage
    done: int = 0
    damaged: dict[Damage, np.ndarray] = field(default_factory=dict)
    unsound: str = ""

    def blocks(self) -> np.ndarray:
        """(z, y, x) bool over the block grid: blocks with any damage."""
        nothing = np.zeros(self.stage.grid.shape, dtype=bool)
        return np.logical_or.reduce([nothing, *self.damaged.values()])

    def count(self, damage: Damage) -> int:
        """How many blocks have a kind of damage."""
        return int(self.damaged[damage].sum()) if damage in self.damaged else 0

    @property
    def sound(self) -> bool:
        """Whether nothing is wrong."""
        return not self.unsound and not self.blocks().any()


def audit(run: Run) -> list[StageFindings]:
    """Check all stages that have an output under the present config; later ones that have none are left out.

    Raises:
        UserError: nothing is computed yet, or an output is stale.
    """
    stages = audited_stages(run)
    if not stages:
        raise UserError("nothing is computed yet; run workflows/02_predict_blockwise.py first", str(run.volume))
    findings: dict[str, StageFindings] = {}
    fragments = np.zeros(0, dtype=np.int64)
    for stage in stages:
        found = findings[stage.name] = StageFindings(stage)
        if isinstance(stage, VolumeTask):
            voxels = _check_array(stage, found, findings)
            if isinstance(stage, FragmentsTask):
                fragments = voxels
        if isinstance(stage, SegmentTask) and not stage.lut_is_sound():
            found.unsound = "the lookup table is missing or damaged"
    _check_graph(run, stages, findings, fragments)
    return list(findings.values())


def audited_stages(run: Run) -> list[Stage]:
    """The stages that have an output, upstream ones first.

    Raises:
        UserError: an output was made with other settings or inputs, so that nothing is known of it.
    """
    stages: list[Stage] = [PredictTask(run), FragmentsTask(run), RagTask(run), agglomeration(run)]
    found = []
    for stage in stages:
        progress = progress_of(stage)
        if progress is Progress.STALE:
            raise UserError(f"{stage.name} is stale; run workflows/{stage.script} with --overwrite first")
        if progress is not Progress.ABSENT:
            found.append(stage)
    return [*found, *written_segmentations(run)] if len(found) == len(stages) else found


def _check_array(task: VolumeTask, found: StageFindings, before: dict[str, StageFindings]) -> np.ndarray:
    """Read every chunk that should be there; (N,) int64 fragments per block, -1 where they are not known."""
    done = done_blocks(task)
    found.done = int(done.sum())
    kinds = (Damage.MISSING, Damage.UNREADABLE, Damage.UNRECORDED, Damage.CHANGED, Damage.ZERO)
    flags = {kind: np.zeros(len(task.grid), dtype=bool) for kind in kinds}
    fragments = np.where(done.ravel(), -1, 0)
    records, volume = task.records.read(), task.open()
    input_holds = _input_holds(task)
    store = CheckedStore(str(task.run.volume))

    def check(block: Block) -> tuple[int, Damage | None, int]:
        if any(f"{task.dataset}/{name}" not in store for name, *_ in chunks_of(volume, block.box)):
            return block.index, Damage.MISSING, -1
        try:
            data = volume.read(block.box)
        except UserError:
            return block.index, Damage.UNREADABLE, -1
        if not records.present[block.index]:
            return block.index, Damage.UNRECORDED, -1
        if array_checksum(data) != records.checksum[block.index]:
            return block.index, Damage.CHANGED, -1
        if _is_doubtful(task, records, block) and input_holds(block):
            return block.index, Damage.ZERO, 0
        return block.index, None, _count_pieces(task, block, data)

    blocks = (task.grid.block(index) for index in np.flatnonzero(done).tolist())
    threads = task.run.config.cluster.workers
    for index, damage, pieces in in_threads(check, blocks, threads, found.done, f"audit {task.name}"):
        fragments[index] = pieces
        if damage is not None:
            flags[damage][index] = True
    found.damaged = {kind: flag.reshape(task.grid.shape) for kind, flag in flags.items()}
    return fragments


def _is_doubtful(task: VolumeTask, records: RecordTable, block: Block) -> bool:
    """Whether a block is all zero and was computed only once, where the config does not expect zeros."""
    zero = records.filled[block.index] == 0
    return bool(zero) and records.times[block.index] < 2 and not task.empty_is_an_answer


def _input_holds(task: VolumeTask) -> Callable[[Block], bool]:
    """Whether the input of a block holds anything, as far as the block's own voxels tell."""
    if isinstance(task, PredictTask):
        raw = open_raw(task.run)

        def raw_varies(block: Block) -> bool:
            intensities = raw.read(task.grid.to_source(block.box))
            return bool(intensities.min() != intensities.max())

        return raw_varies
    upstream = next(stage for stage in task.reads if isinstance(stage, VolumeTask)).open()

    def upstream_holds(block: Block) -> bool:
        try:
            return bool(upstream.read(block.box).any())
        except UserError:
            return True  # it held something that could be damaged

    return upstream_holds


def _count_pieces(task: VolumeTask, block: Block, data: np.ndarray) -> int:
    """Fragments in a block, which are numbered without gaps from the first id of the block."""
    if not isinstance(task, FragmentsTask) or not data.any():
        return 0
    first, _ = task.grid.fragment_ids(block)
    return int(data.max()) - first + 1


def _check_graph(run: Run, stages: Sequence[Stage], findings: dict[str, StageFindings], fragments: np.ndarray) -> None:
    """The graph against the fragments, and the scores."""
    rag = next((stage for stage in stages if isinstance(stage, RagTask)), None)
    if rag is None:
        return
    scored = next((stage for stage in stages if stage.name == agglomeration(run).name), None)
    done, found = done_blocks(rag), findings[rag.name]
    graph = check_graph(rag, done, fragments, scored)
    found.done = int(done.sum())
    found.damaged = {
        Damage.UNRECORDED: graph.unrecorded,
        Damage.CHANGED: graph.changed,
        Damage.NODES_WITHOUT_VOXELS: graph.nodes_without_voxels,
        Damage.VOXELS_WITHOUT_NODES: graph.voxels_without_nodes,
        Damage.EDGES_WITHOUT_NODES: graph.edges_without_nodes,
    }
    if scored is not None:
        _note_scores(scored, findings[scored.name], graph)


def _note_scores(stage: Stage, found: StageFindings, graph: GraphFindings) -> None:
    if isinstance(stage, BlockTask):
        found.done = int(done_blocks(stage).sum())
        found.damaged = {Damage.UNRECORDED: graph.unscored, Damage.CHANGED: graph.changed_scores}
    elif read_record(stage).get("complete") is True:
        found.done = 1
        if graph.edges_without_score:
            found.unsound = f"{graph.edges_without_score} edges have no score"
