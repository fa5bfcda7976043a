"""What the commands of the block-wise stages share: their options, and what these do."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Callable, Sequence
from typing import NoReturn

from ..cli import run_script
from ..command_names import command_line, given_again
from ..datasets import describe_import
from ..engine.blocks.stage import Stage
from ..engine.chain import run_stages
from ..engine.pilot import log_pilots
from ..engine.plan import log_plan
from ..engine.tracking.driver_lock import only_driver
from ..run import Run
from ..stages.by_script import import_for, sources_to_import_for
from ..stages.chosen_checkpoint import require_predictable
from ..stages.foreseen_run import foreseen_run
from ..stages.importing import plan_conversions, require_foreseen_regions, require_same_volume

logger = logging.getLogger("emdistill")


def run_blockwise(
    description: str,
    stages_of: Callable[[Run], Sequence[Stage]],
    step: str | None = None,
) -> NoReturn:
    """Run stages, or with `--dry-run` and `--pilot` say what that would take; and exit.

    Args:
        description: for `--help`.
        stages_of: the stages of a run, upstream first.
        step: its name in `command_names.SCRIPTS`; if it predicts, the volume is imported first. None: it is not ours.
    """

    def work(run: Run, options: argparse.Namespace) -> int:
        if options.dry_run:
            require_same_volume(run)
            _plan(run, stages_of, [] if step is None else sources_to_import_for(run, step), options)
            return 0
        with only_driver(run):
            if step is None:
                require_same_volume(run)
            else:
                import_for(run, step)
            if options.pilot:
                log_pilots(run, stages_of(run), options.pilot, options.overwrite)
                return 0
            return 0 if run_stages(run, stages_of(run), options.overwrite) else 1

    run_script(description, work, add_arguments=_add_arguments)


def _plan(
    run: Run, stages_of: Callable[[Run], Sequence[Stage]], sources: Sequence[str], options: argparse.Namespace
) -> None:
    """Say what would be imported before anything else, and what stages would do then.

    Args:
        run: the run.
        stages_of: the stages of a run, upstream first.
        sources: that would be imported.
        options: as the user typed them.
    """
    if sources:
        for line in describe_import(run, sources):
            logger.info(line)
        require_foreseen_regions(run, sources)
        require_predictable(run)
    with foreseen_run(run, sources) as planned:
        if planned is None:
            logger.info(what_to_plan_after(options))
        else:
            log_plan(planned, stages_of(planned), before=plan_conversions(run, sources))


def what_to_plan_after(options: argparse.Namespace, network: str | None = None) -> str:
    """What must be done before the blocks of a public data set can be planned, for people.

    Args:
        options: as the user typed them.
        network: that is to be trained before, too.
    """
    command = command_line("import_data.py", options.config, *given_again(options.set))
    then = "then" if network is None else f"then, and once the {network} is trained,"
    what = "it downloads the volume"
    return f"run `{command}` once: {what}; {then} the blocks can be planned"


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--overwrite", action="store_true", help="redo what was made with other settings or inputs")
    add_pilot(parser)


def add_pilot(parser: argparse.ArgumentParser) -> None:
    """The option that asks for a pilot."""
    parser.add_argument(
        "--pilot",
        type=_positive,
        default=0,
        metavar="BLOCKS",
        help="let every worker compute so many blocks, and predict time and memory of all",
    )


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a number of blocks above 0")
    return value
