"""Where new Python processes find this program: where this process found it, and never in the working directory.

`python -m` and `python -c` search the working directory first. A user's own `pipeline.py` there would be imported in
place of this package.
"""

from __future__ import annotations

import os
import site
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

PROGRAM = Path(__file__).resolve().parents[1]
"""The folder that holds this package."""


def module_command(module: str, *arguments: str) -> list[str]:
    """The command that runs a module of this program, with `-P`: nothing of the working directory is imported."""
    return [sys.executable, "-P", "-m", module, *arguments]


def python_path() -> str:
    """`PYTHONPATH` of a new process: this program first, then what this process was given, as absolute paths."""
    given = absolute(filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep)))
    installed = str(PROGRAM) in site.getsitepackages()  # found by itself, and must not come before the standard library
    return os.pathsep.join(dict.fromkeys(given if installed else [str(PROGRAM), *given]))


def absolute(search_path: Iterable[str]) -> list[str]:
    """Entries of a search path that mean the same in another working directory; an empty one is this one."""
    return [os.path.abspath(entry) for entry in search_path]  # noqa: PTH100  `Path.resolve` would follow links


@contextmanager
def safe_search_path() -> Iterator[None]:
    """Let Python processes that are started inside, as those of `multiprocessing`, search as `module_command` does."""
    with inherited({"PYTHONPATH": python_path(), "PYTHONSAFEPATH": "1"}):
        yield


@contextmanager
def inherited(variables: Mapping[str, str]) -> Iterator[None]:
    """Let processes that are started inside inherit some environment variables; afterwards they are as before."""
    former = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in former.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
