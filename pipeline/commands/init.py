"""Write a config to start from, nearest to your data."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import NoReturn

from ..cli import exit_after
from ..command_names import SCRIPTS, command_line
from ..errors import UserError


def templates() -> dict[str, Path]:
    """The configs to start from, by name: those in configs/ of the repository, or the copy in an installed package."""
    installed = Path(__file__).parents[1] / "configs"
    folder = installed if installed.is_dir() else Path(__file__).parents[2] / "configs"
    return {path.stem: path for path in sorted(folder.glob("*.json"))}


def write_config(name: str, path: Path) -> None:
    """Write the config of a name; a file that is there stays.

    Raises:
        UserError: there is no such config, the file exists, or cannot be written.
    """
    found = templates()
    if name not in found:
        raise UserError(f"there is no config {name!r}; there are {', '.join(found)}", "NAME")
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(found[name].read_text(encoding="utf-8"))
    except FileExistsError:
        raise UserError("exists already; give another place with --to", str(path)) from None
    except OSError as error:
        raise UserError(f"cannot be written: {error.strerror}", str(path)) from error


def main() -> NoReturn:
    """Read the command line, write the config, and exit."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", nargs="?", default="demo", help=f"{', '.join(templates())} (default: demo)")
    parser.add_argument("--to", type=Path, default=Path("config.json"), metavar="FILE", help="default: ./config.json")
    options = parser.parse_args()

    def work() -> None:
        write_config(options.name, options.to)
        print(f"wrote {options.to}; `python -m pipeline.config docs` explains every key")
        print(f"next: {command_line(SCRIPTS['run'], options.to)}")

    exit_after(work)
