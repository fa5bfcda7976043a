"""What each target of an export consists of."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

from typing_extensions import TypedDict

from ...datasets import require_same_section
from ...engine.blocks.grid import BlockGrid
from ...engine.blocks.stage import BlockTask, Stage
from ...engine.chain import run_stages
from ...engine.tracking.driver_lock import keeps_others_out
from ...engine.tracking.progress import recorded_key
from ...errors import UserError
from ...run import Run
from ...small_files import read_json_as, write_json
from ...volumes.exports import Form
from ...volumes.placement import beside_whole_voxels
from ..by_script import chosen_thresholds
from ..predict import PredictTask
from .description import DescribeStep
from .meshes import MeshPieces, MeshShards
from .pychunkedgraph import ChunkedGraphTask
from .segments import segments_of
from .skeletons import SkeletonPieces, SkeletonShards
from .volume import FRAGMENTS, NO_THRESHOLD, SUPERVOXELS, volume_stages
from .webknossos import AgglomerateStep

Target = Literal["precomputed", "ngff", "webknossos", "pychunkedgraph"]
TARGETS: tuple[Target, ...] = ("precomputed", "ngff", "webknossos", "pychunkedgraph")

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ExportOptions:
    """What is exported, and where to.

    Attributes:
        target: for which program.
        to: path or URL.
        threshold: of the segmentation; None for the one of `segment.thresholds`, the first of several.
        arrays: volumes to export; None for all that there are and that the program can show.
        ngff: version of OME-NGFF.
        meshes, skeletons: whether to make them, of the segments at the threshold.
        minimum_size: voxels that a segment has at least to get a mesh and a skeleton.
    """

    target: Target
    to: str
    threshold: float | None = None
    arrays: tuple[str, ...] | None = None
    ngff: Literal["0.5", "0.4"] = "0.5"
    meshes: bool = False
    skeletons: bool = False
    minimum_size: int = 1000


@keeps_others_out
def export_run(run: Run, options: ExportOptions, overwrite: bool = False) -> bool:
    """Write what a run has in the format of another program.

    Args:
        run: the run.
        options: what, and where to.
        overwrite: redo what was made with other settings or inputs, instead of refusing to mix.

    Returns:
        Whether every block is done.

    Raises:
        UserError: see `export_stages`; or the place holds something else.
    """
    require_same_section(run, run.config.volumes.segment.source)
    stages, decided = export_stages(run, options), _decided(run, options)
    tell_displacement(run, options)
    return run_stages(run, stages, overwrite, accepted=lambda: note_export(run, decided))


def tell_displacement(run: Run, options: ExportOptions) -> None:
    """Say how far an export in whole voxels lies beside the place of what it is of, if it does."""
    grid = BlockGrid.of_run(run)
    moved = beside_whole_voxels(grid.offset, grid.voxel_size)
    if options.target in ("precomputed", "pychunkedgraph") and any(moved):
        logger.info(
            "precomputed volumes lie at whole voxels: what is at %s nm is put %s nm beside (z, y, x), with its meshes"
            " and skeletons; SWC files, ngff and webknossos are exact",
            list(grid.offset),
            [round(move, 6) for move in moved],
        )


def note_export(run: Run, options: ExportOptions) -> None:
    """Note what is exported, for the audit: it is the last one now."""
    others = [other for other in noted_exports(run) if other != options]
    write_json(_notes(run), {"exports": [asdict(each) for each in (*others, options)]})


def noted_exports(run: Run) -> list[ExportOptions]:
    """The exports of a run, the last one at the end.

    Raises:
        UserError: the file that names them is damaged.
    """
    noted = read_json_as(_notes(run), _Noted) or {"exports": []}
    return [replace(each, arrays=None if each.arrays is None else tuple(each.arrays)) for each in noted["exports"]]


def written_stages(run: Run) -> list[Stage]:
    """The stages of all exports, upstream ones first; of those that write the same, the last that was begun."""
    stages: dict[str, Stage] = {}
    for options in noted_exports(run):
        for stage in export_stages(run, options):
            place = stage.output if isinstance(stage, BlockTask) else stage.name
            if place in stages and _claim(stage) < _claim(stages[place]):
                continue  # it was refused, or others have taken its place
            stages.pop(place, None)
            stages[place] = stage
    return list(stages.values())


def _claim(stage: Stage) -> int:
    """How much speaks for a stage having made what lies at its place: 2 if it was begun as it is now, 1 if that was
    before the run changed, 0 if it never was.
    """
    recorded = recorded_key(stage)
    return 0 if recorded is None else 1 + (recorded == stage.key)


def _threshold(run: Run, options: ExportOptions) -> float:
    return options.threshold if options.threshold is not None else chosen_thresholds(run)[0]


def _decided(run: Run, options: ExportOptions) -> ExportOptions:
    """The same options, with what they left to the run as it is now."""
    arrays = _contents(run, options) if options.target in ("precomputed", "ngff") else options.arrays
    return replace(options, threshold=_threshold(run, options), arrays=arrays)


def _notes(run: Run) -> Path:
    return run.tracking / "exports" / "commands.json"


class _Noted(TypedDict):
    """What is noted of a run's exports."""

    exports: list[ExportOptions]


def export_stages(run: Run, options: ExportOptions) -> list[Stage]:
    """The stages of an export, upstream ones first.

    Raises:
        UserError: an option does not fit the target, or the run has nothing to export.
    """
    threshold = _threshold(run, options)
    if not 0 <= threshold <= 1:
        raise UserError(f"{threshold:g} is no merge threshold; they are from 0 to 1", "--threshold")
    if options.minimum_size < 0:
        raise UserError(f"{options.minimum_size} is no number of voxels; 0 or more", "--minimum-size")
    if (options.meshes or options.skeletons) and options.target != "precomputed":
        raise UserError("meshes and skeletons belong to --target precomputed", "--target")
    if options.target in ("precomputed", "ngff"):
        return _volumes(run, options, round(threshold, 6))
    if options.target not in TARGETS:
        raise UserError(f"there is no target {options.target!r}; there are {', '.join(TARGETS)}", "--target")
    if options.target == "webknossos":
        return _webknossos(run, options.to, round(threshold, 6))
    return _chunked_graph(run, options.to, round(threshold, 6))


def _volumes(run: Run, options: ExportOptions, threshold: float) -> list[Stage]:
    form: Form = "precomputed" if options.target == "precomputed" else f"ngff-{options.ngff}"  # type: ignore[assignment]
    contents = _contents(run, options)
    with_ids = "segmentation" in contents
    if (options.meshes or options.skeletons) and not with_ids:
        raise UserError("meshes and skeletons lie in the segmentation: add it to --arrays", "--arrays")
    stages: list[Stage] = [segments_of(run, threshold)] if with_ids else []
    for content in contents:
        stages += volume_stages(run, options.to, form, content, threshold)
    extra: list[str] = []
    if options.meshes:
        stages.append(MeshPieces(run, threshold, options.minimum_size))
        stages.append(MeshShards(run, options.to, threshold, options.minimum_size))
        extra.append("mesh")
    if options.skeletons:
        stages.append(SkeletonPieces(run, threshold, options.minimum_size))
        stages.append(SkeletonShards(run, options.to, threshold, options.minimum_size))
        extra.append("skeletons")
    stages.append(DescribeStep(run, options.to, form, contents, threshold if with_ids else NO_THRESHOLD, tuple(extra)))
    return stages


def _webknossos(run: Run, to: str, threshold: float) -> list[Stage]:
    """Raw and fragments as OME-NGFF, which WEBKNOSSOS reads, and the agglomerate file beside the fragments."""
    raw, fragments = (volume_stages(run, to, "ngff-0.5", content, threshold) for content in ("raw", FRAGMENTS))
    tables = [segments_of(run, each) for each in sorted({threshold, fragments[0].threshold})]
    return [*tables, *raw, *fragments, AgglomerateStep(run, to, threshold)]


def _chunked_graph(run: Run, to: str, threshold: float) -> list[Stage]:
    """Supervoxels as a precomputed volume, and edges and components per chunk."""
    stages = [segments_of(run, threshold), *volume_stages(run, to, "precomputed", SUPERVOXELS, threshold)]
    return [*stages, ChunkedGraphTask(run, to, threshold)]


def _contents(run: Run, options: ExportOptions) -> tuple[str, ...]:
    """The volumes to export, in the order of the pipeline."""
    labelled = run.has_labels(run.config.volumes.segment.source)
    if options.arrays is None:
        predicted = PredictTask(run)
        affinities = options.target == "ngff" and predicted.stored_key() is not None and not predicted.drops.exists()
        wanted: Sequence[str] = ["raw", *["affinities"] * affinities, "segmentation", *["labels"] * labelled]
    else:
        wanted = options.arrays
    if "labels" in wanted and not labelled:
        raise UserError("the segmented source has no labels", "--arrays")
    if options.target == "ngff" and "raw" not in wanted:
        wanted = ["raw", *wanted]  # labels belong to an image
    return tuple(wanted)
