"""The status of a run: stages, workers, errors, when it will be done. Reads files only; run it beside anything."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

from rich.console import Console
from rich.live import Live
from rich.text import Text

from ..cli import run_script
from ..engine.status import History, RunStatus, TerminalStyle, render_text, status_document, write_page
from ..run import Run
from ..stages.run_status import read_status
from ..terminal import has_colours

WATCH_SECONDS = 5.0
"""Between looks unless `--watch` says otherwise."""
REFRESH_SECONDS = 10.0
"""After which a browser reads a page again that nobody watches for."""
PAGE = "status.html"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of this step."""
    parser.add_argument(
        "--watch",
        nargs="?",
        type=seconds,
        const=WATCH_SECONDS,
        metavar="SECONDS",
        help=f"look again and again (default: every {WATCH_SECONDS:g} seconds) until the run ends",
    )
    parser.add_argument(
        "--html",
        nargs="?",
        type=page,
        const=Path(),
        metavar="FILE",
        help=f"write a page for a browser (default: {PAGE} in the run directory)",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object (per look) for other programs")
    parser.add_argument("--all", action="store_true", help="list all workers")


def seconds(text: str) -> float:
    """A number of seconds above 0."""
    try:
        value = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text} is no number of seconds; write the config before --watch") from None
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not a number of seconds above 0")
    return value


def page(text: str) -> Path:
    """The path of a page, which cannot be a config."""
    if not text.endswith((".html", ".htm")):
        raise argparse.ArgumentTypeError(f"{text} does not end in .html; write the config before --html")
    return Path(text)


def work(run: Run, options: argparse.Namespace) -> int:
    """Look once, or until the run is over or Ctrl-C."""
    history = History()
    try:
        with screen(options) as show_text:
            while True:
                status = read_status(run, Path(options.config), history, options.set)
                show(run, status, options, show_text)
                if options.watch is None or status.is_over:
                    return 0
                time.sleep(options.watch)
    except KeyboardInterrupt:
        return 0


@contextmanager
def screen(options: argparse.Namespace) -> Iterator[Callable[[str], None]]:
    """What shows a status: on a terminal that is watched in place of the one before, elsewhere below it."""
    if options.watch is None or options.json or not sys.stdout.isatty():
        yield lambda text: print(text, flush=True)
        return
    with Live(console=Console(), auto_refresh=False) as live:
        yield lambda text: live.update(Text.from_ansi(text), refresh=True)


def show(run: Run, status: RunStatus, options: argparse.Namespace, show_text: Callable[[str], None]) -> None:
    """Show what is asked for, and write the page."""
    if options.html is not None:
        show_page(run, status, options)
    if options.json:
        print(json.dumps(status_document(status), indent=None if options.watch else 2), flush=True)
    elif options.html is None or (options.watch and sys.stdout.isatty()):
        show_text(render_text(status, style_of_terminal(), options.all))


def show_page(run: Run, status: RunStatus, options: argparse.Namespace) -> None:
    """Write the page, and say once where it is."""
    path = run.directory / PAGE if options.html == Path() else options.html
    if not options.dry_run:
        is_new = not path.exists()
        write_page(path, status, options.watch or REFRESH_SECONDS, options.all)
        if (is_new or not options.watch) and not options.json:
            print(path, flush=True)
    elif not options.json:
        print(f"would write {path}")


def style_of_terminal() -> TerminalStyle:
    """Colours on a terminal that has them, unless NO_COLOR is set; blocks in a bar where they can be encoded."""
    colour = has_colours(sys.stdout)
    if (sys.stdout.encoding or "").lower().replace("-", "") == "utf8":
        return TerminalStyle(colour, "█", "░")
    return TerminalStyle(colour)


def main() -> NoReturn:
    """Read the command line, do the step, and exit."""
    run_script(str(__doc__), work, add_arguments=add_arguments)
