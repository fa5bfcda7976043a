"""Look at, copy or delete graphs from the command line: `python -m pipeline.rag`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from ..config.graph_url import shown_url
from ..errors import UserError
from ..terminal import replace_what_cannot_be_printed
from ..units import counted
from . import RagCounts, is_connection_error, open_rag, rag_exists


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m pipeline.rag", description=__doc__)
    parser.add_argument(
        "--run",
        type=Path,
        metavar="DIRECTORY",
        help="run directory: relative files lie there, and graphs without a name are called after it",
    )
    commands = parser.add_subparsers(dest="command", required=True)
    copy = commands.add_parser("copy", help="copy a graph with its notes into an empty store of any kind")
    copy.add_argument("source", metavar="FROM", help="URL, as rag.url")
    copy.add_argument("target", metavar="TO", help="URL, as rag.url")
    for name, text in (("counts", "say how much a graph holds"), ("drop", "delete a graph, its notes included")):
        commands.add_parser(name, help=text).add_argument("source", metavar="URL")
    options = parser.parse_args(arguments)
    replace_what_cannot_be_printed()
    try:
        sys.stdout.write(_run(options) + "\n")
    except UserError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    except Exception as error:
        if not is_connection_error(error):
            raise
        sys.stderr.write(f"error: the connection to the database was lost: {' '.join(str(error).split())}\n")
        return 1
    return 0


def _run(options: argparse.Namespace) -> str:
    """Run a command; the line to print."""
    shown = shown_url(options.source)
    if not rag_exists(options.source, options.run):
        raise UserError(f"there is no graph at {shown}", "rag.url")
    with open_rag(options.source, options.run) as store:
        if options.command == "drop":
            counts = store.counts()
            store.drop()
            return f"deleted {_described(counts)} of {shown}"
        if options.command == "counts":
            return f"{shown}: {_described(store.counts())}"
        with open_rag(options.target, options.run) as target:
            store.copy_to(target)
            return f"copied {_described(target.counts())} to {shown_url(options.target)}"


def _described(counts: RagCounts) -> str:
    parts = [counted(counts.blocks, "block"), counted(counts.nodes, "node"), counted(counts.edges, "edge")]
    return f"{', '.join(parts)} ({counts.scored_edges:,} with a score)"


if __name__ == "__main__":
    sys.exit(main())
