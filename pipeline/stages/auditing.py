"""Audits a run: compares arrays, graph and lookup tables on disk with what was computed."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np

from ..command_names import SCRIPTS, name_of
from ..engine.audit.arrays import Damage, StageFindings, audit_stages
from ..engine.audit.presence import require_all_chunks
from ..engine.blocks.stage import BlockTask, Stage
from ..engine.tracking.markers import done_blocks
from ..engine.tracking.progress import Progress, progress_of, read_record, why_stale
from ..errors import UserError
from ..run import Run
from ..units import counted
from .agglomerate import agglomeration
from .by_script import chained_stages
from .certainty import written_certainty
from .convert import all_conversions, conversions
from .export.targets import written_stages
from .fragments import FragmentsTask
from .graph_audit import GraphFindings, check_graph
from .graph_rows import check_graph_rows
from .linkage import RegionTask
from .pyramid import PyramidTask, segmentation_pyramid
from .region_graph import RagTask, open_graph
from .segment import written_segmentations

logger = logging.getLogger(__name__)


def audit(run: Run) -> list[StageFindings]:
    """Check all stages that have an output under the present config; later ones that have none are left out.

    Raises:
        UserError: nothing is computed yet, or an output is stale.
    """
    stages = audited_stages(run)
    if not stages:
        raise UserError(f"nothing is computed yet; run {name_of(SCRIPTS['predict'])} first", str(run.volume))
    exported, lost = audited_exports(run)
    stages += exported
    findings = audit_stages(stages)
    for stage in stages:
        if isinstance(stage, RegionTask):
            _check_regions(stage, findings[stage.name])
    _check_graph(run, stages, findings)
    return [*findings.values(), *lost]


def audited_exports(run: Run) -> tuple[list[Stage], list[StageFindings]]:
    """The stages of exports that have an output, and what is to say of those that have lost theirs. Exports of what the
    run held before it was computed anew are as they should be, and left out.
    """
    found: list[Stage] = []
    lost: list[StageFindings] = []
    for stage in written_stages(run):
        progress = progress_of(stage)
        if progress in (Progress.STARTED, Progress.DONE):
            found.append(stage)
        elif progress is Progress.STALE:
            logger.warning("%s is not checked: the run has changed since (%s)", stage.output, why_stale(stage))
        elif read_record(stage).get("key") == stage.key:
            lost.append(StageFindings(stage, unsound=f"{stage.output} is gone"))
    return found, lost


def require_chunks(run: Run) -> None:
    """Make sure that no chunk is lost of the arrays that are scored and shown.

    Raises:
        UserError: names the first one that is missing.
    """
    imported = conversions(run, run.config.volumes.segment.source)
    for task in (*imported, FragmentsTask(run), *written_segmentations(run)):
        require_all_chunks(task)


def require_graph(run: Run) -> None:
    """Make sure that the graph is what was computed, for those who read it outside the stages.

    Raises:
        UserError: rows or scores are lost or have changed, or are not all computed yet; says what to run.
    """
    graph, scores = RagTask(run), agglomeration(run)
    states = {stage.name: progress_of(stage) for stage in (graph, scores)}
    for stage in (graph, scores):
        if states[stage.name] is Progress.STARTED:
            raise UserError(f"{stage.name} is not complete; run {name_of(stage.script)} first", stage.output)
    if states[graph.name] is Progress.DONE:
        with open_graph(run) as store:
            check_graph_rows(store, graph, scores if states[scores.name] is Progress.DONE else None)


def audited_stages(run: Run) -> list[Stage]:
    """The stages that have an output, upstream ones first.

    Raises:
        UserError: an output was made with other settings or inputs, so that nothing is known of it; or it is gone.
    """
    stages = chained_stages(run)
    progress = {stage.name: progress_of(stage) for stage in stages}
    found = [stage for stage in stages if progress[stage.name] is not Progress.ABSENT]
    for stage in stages:
        if progress[stage.name] is Progress.STALE:
            raise UserError(f"{stage.name} is stale; run {name_of(stage.script)} with --overwrite first")
        later = [made.name for made in found if stage in made.upstream]
        if progress[stage.name] is Progress.ABSENT and later:
            raise UserError(
                f"{stage.name} is gone or damaged, although {later[0]} was made from it; run {name_of(stage.script)},"
                " which makes it again",
                stage.output,
            )
    imported: list[Stage] = list(all_conversions(run))
    if any(progress[stage.name] is Progress.ABSENT for stage in stages if not isinstance(stage, PyramidTask)):
        return [*imported, *found]
    written = written_segmentations(run)
    levels = [level for task in written for level in segmentation_pyramid(run, task.threshold)]
    levels = [level for level in levels if level.stored_key() == level.key]
    return [*imported, *found, *written, *levels, *written_certainty(run)]


def _check_regions(task: RegionTask, found: StageFindings) -> None:
    """The files in which regions hand edges and scores to each other."""
    done = done_blocks(task)
    lost = [bool(is_done) and task.is_lost(index) for index, is_done in enumerate(done.ravel())]
    found.done, found.damaged = int(done.sum()), {Damage.MISSING: np.array(lost, bool).reshape(task.grid.shape)}


def _check_graph(run: Run, stages: Sequence[Stage], findings: dict[str, StageFindings]) -> None:
    """The graph against the fragments, and the scores."""
    rag = next((stage for stage in stages if isinstance(stage, RagTask)), None)
    if rag is None:
        return
    scored = next((stage for stage in stages if stage.name == agglomeration(run).name), None)
    done, found = done_blocks(rag), findings[rag.name]
    fragments = findings[FragmentsTask.stage]
    graph = check_graph(rag, done, fragments.ids, fragments.blocks(), scored)
    found.done = int(done.sum())
    found.damaged = {
        Damage.UNRECORDED: graph.unrecorded,
        Damage.CHANGED: graph.changed,
        Damage.NODES_WITHOUT_VOXELS: graph.nodes_without_voxels,
        Damage.VOXELS_WITHOUT_NODES: graph.voxels_without_nodes,
        Damage.EDGES_WITHOUT_NODES: graph.edges_without_nodes,
        Damage.MISCOUNTED: graph.miscounted,
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
            found.unsound = f"without a score: {counted(graph.edges_without_score, 'edge')}"
        elif graph.changed_scores.any():
            found.unsound = f"the scores of {counted(int(graph.changed_scores.sum()), 'block')} have another checksum"
