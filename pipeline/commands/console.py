"""The console command: `emdistill <step> [config.json]` does what the scripts in workflows/ do."""

from __future__ import annotations

import ast
import sys
from collections.abc import Callable
from difflib import get_close_matches
from importlib import import_module
from pathlib import Path
from typing import NoReturn

from .. import __version__
from ..cli import exit_with
from ..command_names import COMMAND, SCRIPTS, module_of, note_what_the_user_typed, step_called
from ..errors import UserError
from ..terminal import replace_what_cannot_be_printed

INIT = "init"
"""The one step that needs no config, for it writes one."""

HELP = f"""\
usage: {COMMAND} STEP [config.json] [options]

Segment electron microscopy: train a teacher, distil a student, run it block by block.

steps:
{{steps}}

The number of a script in workflows/ is a step, too: `{COMMAND} 02` is `{COMMAND} predict`.
`{COMMAND} STEP --help` lists the options of a step.
"""


def main() -> NoReturn:
    """Read the command line, do the step, and exit."""
    replace_what_cannot_be_printed()
    words = sys.argv[1:]
    if words in (["--version"], ["-V"]):
        print(f"{COMMAND} {__version__}")
        sys.exit(0)
    if not words or words[0] in ("--help", "-h", "help"):
        print(HELP.format(steps=list_of_steps()), end="")
        sys.exit(0 if words else 2)
    try:
        step, do = find_step(words[0])
    except UserError as error:
        exit_with(error)
    note_what_the_user_typed(COMMAND)
    sys.argv = [f"{COMMAND} {step}", *words[1:]]
    do()
    sys.exit(0)


def find_step(name: str) -> tuple[str, Callable[[], NoReturn]]:
    """A step, and the function that does it; its module is imported now.

    Args:
        name: of the step, or the number or name of its script.

    Raises:
        UserError: there is no such step.
    """
    step = INIT if name == INIT else step_called(name)
    if step is None:
        similar = get_close_matches(name, [INIT, *SCRIPTS], n=1)
        hint = f"did you mean {similar[0]!r}?" if similar else f"there are {', '.join([INIT, *SCRIPTS])}"
        raise UserError(f"no such step; {hint}", name)
    main_of_step: Callable[[], NoReturn] = import_module(f"{__package__}.{_module(step)}").main
    return step, main_of_step


def list_of_steps() -> str:
    """All steps with what they do, a line each; without importing them, which would take seconds."""
    return "\n".join(f"  {step:<18}{_description(step)}" for step in [INIT, *SCRIPTS])


def _module(step: str) -> str:
    return INIT if step == INIT else module_of(step)


def _description(step: str) -> str:
    source = Path(__file__).with_name(f"{_module(step)}.py").read_text(encoding="utf-8")
    docstring = ast.get_docstring(ast.parse(source)) or ""
    return docstring.splitlines()[0]
