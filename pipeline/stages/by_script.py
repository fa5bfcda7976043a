"""Which stages each workflow script runs: the table `STAGES_OF`, and functions that run them.

Scripts, `run_all`, status, audit and plan ask here; what the scripts are called stands in `command_names.SCRIPTS`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ..datasets import is_ready
from ..engine.blocks.stage import Stage
from ..engine.chain import run_stages
from ..engine.tracking.driver_lock import only_driver
from ..errors import UserError
from ..run import Run
from .agglomerate import scoring_stages
from .certainty import certainty_stages, written_certainty
from .chosen_checkpoint import require_predictable
from .convert import all_conversions
from .fragments import FragmentsTask
from .importing import ensure_imported, require_same_volume
from .predict import PredictTask
from .pyramid import PyramidTask, fragments_pyramid, raw_pyramid, segmentation_pyramid
from .quantise import sources_to_predict
from .region_graph import RagTask
from .segment import SegmentTask, written_segmentations


def predict(run: Run, overwrite: bool = False) -> bool:
    """Stage 02: raw to `affinities`. Here and below: whether every block is done.

    Raises:
        UserError: no or a wrong checkpoint, a volume smaller than the network's context, or stale output.
    """
    return run_stages(run, prediction_stages(run), overwrite)


def extract_fragments(run: Run, overwrite: bool = False) -> bool:
    """Stage 03: `affinities` to `fragments`."""
    return run_stages(run, stages_to_run(run, "fragments"), overwrite)


def agglomerate(run: Run, overwrite: bool = False) -> bool:
    """Stage 04: `fragments` to the region adjacency graph, and a merge score for each of its edges."""
    return run_stages(run, stages_to_run(run, "agglomerate"), overwrite)


def segment(run: Run, overwrite: bool = False) -> bool:
    """Stage 05: lookup tables and `segmentation/<threshold>` at the configured thresholds."""
    return run_stages(run, segmentation_stages(run), overwrite)


def run_chain(run: Run, overwrite: bool = False) -> bool:
    """Stages 02 to 04 chained: each block moves on as soon as its inputs are there."""
    return run_stages(run, chained_stages(run), overwrite)


def prediction_stages(run: Run) -> list[Stage]:
    """What stage 02 consists of."""
    task = PredictTask(run)
    first: list[Stage] = [] if run.config.predict.precision == "float32" else list(task.upstream)
    return [*first, task, *raw_pyramid(run)]


def fragment_stages(run: Run) -> list[Stage]:
    """What stage 03 consists of."""
    return [FragmentsTask(run), *fragments_pyramid(run)]


def agglomeration_stages(run: Run) -> list[Stage]:
    """What stage 04 consists of."""
    return [RagTask(run), *scoring_stages(run)]


def segmentation_stages(run: Run) -> list[Stage]:
    """What stage 05 consists of: one task per threshold, and the levels of its pyramid; and how sure the segmentation
    at the first threshold is.

    Raises:
        UserError: two thresholds are the same to two decimals.
    """
    tasks = [SegmentTask(run, threshold) for threshold in chosen_thresholds(run)]
    if len({task.dataset for task in tasks}) < len(tasks):
        raise UserError("two thresholds are the same to two decimals, which name the datasets", "segment.thresholds")
    levels = [level for task in tasks for level in segmentation_pyramid(run, task.threshold)]
    return [*tasks, *levels, *certainty_stages(run, tasks[0].threshold)]


def chosen_thresholds(run: Run) -> tuple[float, ...]:
    """The thresholds to segment at; `best` is the best one on the validation region, or 0.5 without labels."""
    thresholds = run.config.segment.thresholds
    if thresholds == "best":
        from ..evaluation import best_threshold  # not needed by workers, which import this module too
        from .auditing import require_graph

        require_graph(run)
        return (best_threshold(run),)
    return tuple(thresholds)


STAGES_OF: dict[str, Callable[[Run], list[Stage]]] = {
    "predict": prediction_stages,
    "fragments": fragment_stages,
    "agglomerate": agglomeration_stages,
    "segment": segmentation_stages,
}
"""The stages of each step that computes blocks, in the order of work."""
CHAINED = ("predict", "fragments", "agglomerate")
"""Steps whose stages can run together; the thresholds to segment at may only be known after them."""


def chained_stages(run: Run) -> list[Stage]:
    """The stages of those steps, upstream ones first: those that run together, then the pyramids."""
    return _in_order(run, CHAINED)


def _in_order(run: Run, steps: Sequence[str]) -> list[Stage]:
    """The stages of some steps, their pyramids last."""
    stages = [stage for step in steps for stage in STAGES_OF[step](run)]
    return sorted(stages, key=lambda stage: isinstance(stage, PyramidTask))


def stages_to_run(run: Run, step: str) -> list[Stage]:
    """What the script of a step runs: its own stages; where affinities are temporary and it reads them, also those
    before it, since blocks of affinities may have to be made again, or were not made on purpose.
    """
    if not begins_with_prediction(run, step):
        return STAGES_OF[step](run)
    return _in_order(run, CHAINED[: CHAINED.index(step) + 1])


def begins_with_prediction(run: Run, step: str) -> bool:
    """Whether the script of a step predicts what is missing."""
    return step == "predict" or (step in CHAINED and run.config.predict.keep_affinities == "until_used")


def import_for(run: Run, step: str) -> None:
    """Import the segmented volume, if the script of a step predicts and it is not imported.

    Raises:
        UserError: it cannot be read, does not fit the config, or has changed since it was imported; or there is no
            network to predict it with.
    """
    if not begins_with_prediction(run, step):
        require_same_volume(run)
        return
    with only_driver(run):
        require_predictable(run)
        ensure_imported(run, sources_to_predict(run))


def sources_to_import_for(run: Run, step: str) -> list[str]:
    """What the script of a step would import or look at before anything else; nothing if all of it is there."""
    if not begins_with_prediction(run, step):
        return []
    sources = sources_to_predict(run)
    return [] if all(is_ready(run, name) for name in sources) else sources


def known_stages(run: Run) -> list[Stage]:
    """The stages of a run, as `known_blockwise_stages`; of the import, what has been converted or begun.

    Raises:
        UserError: two thresholds are the same to two decimals.
    """
    return [*all_conversions(run), *known_blockwise_stages(run)]


def known_blockwise_stages(run: Run) -> list[Stage]:
    """The stages of stages 02 to 05; where the best threshold is yet to be found, only the segmentations that exist.

    Raises:
        UserError: two thresholds are the same to two decimals.
    """
    stages = chained_stages(run)
    if run.config.segment.thresholds != "best":
        return [*stages, *segmentation_stages(run)]
    try:
        written = written_segmentations(run)
        levels = [level for task in written for level in segmentation_pyramid(run, task.threshold)]
        return [*stages, *written, *levels, *written_certainty(run)]
    except UserError:  # what their keys depend on is missing, and the stages before say so
        return stages
