"""The steps as Python functions, each of which does what its script in workflows/ does.

A function imports what it needs when it is called: only training imports gunpowder, only viewing imports neuroglancer.
Whatever writes into the run directory does so alone: while another process works on it, a function raises `UserError`,
which names that process. Messages go to the loggers `pipeline` and `emdistill`;
`logging.basicConfig(level=logging.INFO)` shows them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .config import load_config
from .run import Run

if TYPE_CHECKING:
    from .evaluation import SkeletonOptions


def open_run(config: str | Path | Mapping[str, Any], *, set: Mapping[str, Any] | Iterable[str] = ()) -> Run:
    """Open a run: the config, and the directory in which everything lies. Nothing is written yet.

    Args:
        config: path of a config file, or its content as a dictionary. A relative `run_directory` counts from the
            current directory; `"."` in a file means the folder of that file.
        set: values to change, by dotted key: `{"cluster.workers": 8}`, or as on the command line
            `["cluster.workers=8"]`.

    Raises:
        UserError: the file is missing or no JSON, a key is unknown, a value has the wrong type or range.
    """
    return Run(load_config(config, set))


def import_data(run: Run, sources: Sequence[str] | None = None) -> None:
    """Import the sources of a run (files, the phantom, public data sets); those that are there are left alone.

    Args:
        run: the run.
        sources: names of sources in `volumes.sources`; None for all that the run uses.

    Raises:
        UserError: a source cannot be read, or does not fit the config.
    """
    from .engine.tracking.driver_lock import only_driver
    from .stages.importing import ensure_imported

    with only_driver(run):
        ensure_imported(run, sources)


def train_teacher(run: Run) -> Path:
    """Train the teacher, or continue its training; a finished one is left alone. Imports the data first.

    Returns:
        The teacher's checkpoint.

    Raises:
        UserError: the config, the data or the environment does not allow it.
        KeyboardInterrupt: Ctrl-C or SIGTERM; a checkpoint has been written.
    """
    from . import training
    from .engine.tracking.driver_lock import only_driver

    with only_driver(run):
        training.require_trainable(run, "teacher")
        import_data(run)
        return training.train_teacher(run)


def train_paraphraser(run: Run) -> Path:
    """Train the paraphraser that graph flow needs, or continue; the teacher is trained first if it is missing.

    Returns:
        The paraphraser's file.

    Raises:
        UserError: the config has no graph flow, or the config, the data or the environment does not allow it.
        KeyboardInterrupt: Ctrl-C or SIGTERM; what was learnt is saved.
    """
    from . import training
    from .engine.tracking.driver_lock import only_driver

    with only_driver(run):
        training.require_trainable(run, "student")
        import_data(run)
        return training.train_paraphraser(run)


def distill(run: Run) -> Path:
    """Train the student, distilled from the teacher, or continue; teacher and paraphraser come first if missing.

    With `student.distillation` null the student learns from labels alone.

    Returns:
        The student's checkpoint.

    Raises:
        UserError: the config, the data or the environment does not allow it.
        KeyboardInterrupt: Ctrl-C or SIGTERM; a checkpoint has been written.
    """
    from . import training
    from .engine.tracking.driver_lock import only_driver

    with only_driver(run):
        training.require_trainable(run, "student")
        import_data(run)
        return training.train_student(run)


def predict(run: Run, *, overwrite: bool = False) -> bool:
    """Predict affinities block by block: `raw` to `affinities`. Imports the volume first if it is not imported.

    Args:
        run: the run.
        overwrite: redo what was made with other settings or inputs, instead of refusing to mix.

    Returns:
        Whether every block is done; those that are not are tried again by the next call.

    Raises:
        UserError: no or a wrong checkpoint, a volume smaller than the network's context, or stale output.
    """
    from .engine.tracking.driver_lock import only_driver
    from .stages import by_script

    with only_driver(run):
        by_script.import_for(run, "predict")
        return by_script.predict(run, overwrite)


def extract_fragments(run: Run, *, overwrite: bool = False) -> bool:
    """Over-segment block by block: `affinities` to `fragments`.

    Args:
        run: the run.
        overwrite: redo what was made with other settings or inputs, instead of refusing to mix.

    Returns:
        Whether every block is done.

    Raises:
        UserError: an earlier step has not run, or stale output.
    """
    from .stages import by_script

    by_script.import_for(run, "fragments")
    return by_script.extract_fragments(run, overwrite)


def agglomerate(run: Run, *, overwrite: bool = False) -> bool:
    """Build the region adjacency graph of the fragments, and a merge score for each of its edges.

    Args:
        run: the run.
        overwrite: redo what was made with other settings or inputs, instead of refusing to mix.

    Returns:
        Whether every block is done.

    Raises:
        UserError: an earlier step has not run, the graph's database cannot be reached, or stale output.
    """
    from .stages import by_script

    by_script.import_for(run, "agglomerate")
    return by_script.agglomerate(run, overwrite)


def segment(run: Run, *, overwrite: bool = False) -> bool:
    """Write lookup tables and segmentations at the thresholds of `segment.thresholds`; see `segmentations`.

    Args:
        run: the run.
        overwrite: redo what was made with other settings or inputs, instead of refusing to mix.

    Returns:
        Whether every block is done.

    Raises:
        UserError: an earlier step has not run, or stale output.
    """
    from .stages import by_script

    by_script.import_for(run, "segment")
    return by_script.segment(run, overwrite)


def segmentations(run: Run) -> dict[float, Path | str]:
    """The finished segmentations by threshold: paths of arrays, in a bucket URLs. (z, y, x) uint64, 0 for what belongs
    to no object.
    """
    from .engine.tracking.progress import Progress, progress_of
    from .stages.segment import written_segmentations

    done = [task for task in written_segmentations(run) if progress_of(task) is Progress.DONE]
    arrays = {task.threshold: run.volume / task.dataset for task in done}
    return {threshold: array.file if array.is_local else array.name for threshold, array in arrays.items()}


def evaluate(run: Run, skeletons: str | Path | SkeletonOptions | None = None) -> dict[str, Any]:
    """Score the segmentation at many thresholds against the labels of the volume, and run lengths on skeletons if they
    are given; `summary.json` keeps the scores.

    Args:
        run: the run.
        skeletons: SWC (file or folder), NML, npz, or precomputed skeletons, or these with merge threshold and mask.

    Returns:
        `scores`: for each threshold, as text such as `0.50`, VOI, adapted Rand error and CREMI score; `best`: the
        best one, with its `threshold`, scored on `volumes.test` if there is one; `regions`: which is which. Of separate
        images, also scores of objects. `run_length`: expected run lengths in nanometres. What was not scored is None.

    Raises:
        UserError: there are no labels where the volume was segmented, an earlier step has not run, the source has
            changed since the run began to use it, or skeletons or mask cannot be read.
    """
    from . import evaluation
    from .datasets import require_unchanged
    from .stages.auditing import require_chunks, require_graph

    require_chunks(run)
    require_graph(run)
    require_unchanged(run, run.config.volumes.segment.source)
    if isinstance(skeletons, str | Path):
        skeletons = evaluation.SkeletonOptions(skeletons)
    return evaluation.evaluate(run, skeletons)


def write_report(run: Run) -> Path:
    """Write `report.html`, one self-contained page with scores, curves, slices and timings.

    Returns:
        The path of the page.

    Raises:
        UserError: there is no raw volume yet, or the run directory cannot be written.
    """
    from . import viewer

    return viewer.write_report(run)


def view(run: Run, position: Sequence[float] | None = None) -> Any:
    """Serve everything that the run has to neuroglancer, until this process ends.

    Args:
        run: the run.
        position: what to look at first, z, y, x in nanometres; None for the middle.

    Returns:
        neuroglancer's viewer; `str(viewer)` is the address to open in a browser.

    Raises:
        UserError: there is no raw volume yet.
    """
    from . import viewer

    return viewer.open_viewer(run, position)


def export(run: Run, target: str, to: str | Path, *, overwrite: bool = False, **options: Any) -> bool:
    """Write volumes, meshes, skeletons or the graph in the format of another program; docs/RESULTS.md shows them.

    Args:
        run: the run.
        target: `precomputed` (neuroglancer), `ngff` (OME-NGFF), `webknossos` or `pychunkedgraph`.
        to: path or URL, `s3://bucket/path` for example.
        overwrite: redo what was made with other settings or inputs, instead of refusing to mix.
        options: `threshold` of the segmentation, any, whether it was written or not (default: as `segment.thresholds`);
            `arrays`, names of the volumes to export; `ngff`, version "0.5" or "0.4"; `meshes`, `skeletons`, whether to
            make them, of segments with at least `minimum_size` voxels.

    Returns:
        Whether every block is done.

    Raises:
        UserError: an earlier step has not run, an option does not fit the target, or the place holds something else.
    """
    from .stages.export.place import place_of_export
    from .stages.export.targets import ExportOptions, export_run

    chosen = ExportOptions(target=target, to=place_of_export(to), **options)  # type: ignore[arg-type]
    return export_run(run, chosen, overwrite)


def run_all(run: Run, *, overwrite: bool = False) -> bool:
    """Everything: import, train what is missing, predict, segment, score if there are labels, write the report.

    Args:
        run: the run.
        overwrite: redo blocks that were made with other settings or inputs, instead of refusing to mix.

    Returns:
        Whether every block is done. If not, there are no scores and no report.

    Raises:
        UserError: the config, the data or the environment does not allow it.
        KeyboardInterrupt: Ctrl-C or SIGTERM; the same call continues.
    """
    from .command_names import goes_on_by_itself
    from .engine.tracking.driver_lock import only_driver
    from .whole_run import run_to_segmentation

    with goes_on_by_itself(), only_driver(run):  # in this order: the lock says what it is for
        if not run_to_segmentation(run, overwrite):
            return False
        if run.has_labels(run.config.volumes.segment.source):
            evaluate(run)
        write_report(run)
    return True
