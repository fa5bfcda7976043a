"""Check everything that the block-wise stages wrote: chunks against checksums, graph against fragments; and sources."""

from __future__ import annotations

import argparse
from collections.abc import Collection, Sequence
from contextlib import nullcontext
from typing import NoReturn

from ..cli import run_script
from ..command_names import SCRIPTS, command_line, name_of
from ..datasets import audit_sources
from ..engine.audit.arrays import Damage, StageFindings
from ..engine.audit.requeue import blocks_to_redo, requeue
from ..engine.blocks.stage import DriverStep
from ..engine.tracking.driver_lock import only_driver
from ..run import Run
from ..stages.auditing import audit
from ..terminal import table_lines
from ..units import counted


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of this step."""
    parser.add_argument(
        "--requeue",
        action="store_true",
        help="un-mark what is damaged and what was made from it, so that the normal command makes exactly that again",
    )


def print_table(findings: Sequence[StageFindings]) -> None:
    """One line per stage, one column per kind of damage."""
    counts = ["done", *(damage.value for damage in Damage)]
    rows = [
        [found.stage.name, str(found.done), *(str(found.count(damage)) for damage in Damage), found.unsound]
        for found in findings
    ]
    print("\n".join(table_lines(["stage", *counts, ""], rows, numbers=counts)))
    for found in findings:
        if found.dropped:
            print(f"{found.stage.name}: dropped after use, in whole or in part: {counted(found.dropped, 'block')}")


def work(run: Run, options: argparse.Namespace) -> int:
    """Exit status 1 if something is wrong."""
    take_back = options.requeue and not options.dry_run
    with only_driver(run) if take_back else nullcontext():
        sources = audit_sources(run)
        for trouble in sources:
            print(trouble)
        findings = audit(run)
        print_table(findings)
        damaged = sum(int(found.blocks().sum()) for found in findings)
        steps = [found.unsound for found in findings if found.unsound]
        if not damaged and not steps:
            print(f"sound: all of {counted(sum(found.done for found in findings), 'block')}")
            return 1 if sources else 0
        wrong = ", ".join([f"damaged: {counted(damaged, 'block')}", *steps])
        redo = requeue(findings) if take_back else blocks_to_redo(findings)
    steps_redone = {found.stage.name for found in findings if isinstance(found.stage, DriverStep)}
    parts = ", ".join(
        name if name in steps_redone else f"{counted(int(blocks.sum()), 'block')} of {name}"
        for name, blocks in redo.items()
    )
    print(f"{wrong}; {'to be made again' if take_back else '--requeue would have made again'}: {parts}")
    if take_back:
        print(what_follows(run, {found.stage.script for found in findings if found.stage.name in redo}))
    return 1


def what_follows(run: Run, scripts: Collection[str]) -> str:
    """The commands that make again what was taken back, in words.

    Args:
        run: the run.
        scripts: of the stages to be made again.
    """
    in_order = [script for script in SCRIPTS.values() if script in scripts and script != SCRIPTS["export"]]
    steps = []
    if in_order:
        steps.append(" && ".join(command_line(script, run.directory / "config.json") for script in in_order))
    if SCRIPTS["export"] in scripts:
        steps.append(f"{name_of(SCRIPTS['export'])} as it was called for each export")
    return f"next: {'; then '.join(steps)}"


def main() -> NoReturn:
    """Read the command line, do the step, and exit."""
    run_script(str(__doc__), work, add_arguments=add_arguments)
