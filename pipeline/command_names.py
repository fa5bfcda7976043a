"""The names of the steps: of the console command `emdistill <step>`, and of the scripts in workflows/ that do the same.

Messages name the command that the user has. Who began with `emdistill` reads "emdistill fragments config.json", who
began with a script reads "python workflows/03_extract_fragments.py config.json", in jobs and workers too.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

SCRIPTS: dict[str, str] = {
    "import": "import_data.py",
    "train-teacher": "00_train_teacher.py",
    "train-paraphraser": "00b_train_paraphraser.py",
    "distill": "01_distill.py",
    "predict": "02_predict_blockwise.py",
    "fragments": "03_extract_fragments.py",
    "agglomerate": "04_agglomerate.py",
    "segment": "05_segment.py",
    "evaluate": "06_evaluate.py",
    "view": "07_view.py",
    "export": "08_export.py",
    "run": "run_all.py",
    "status": "status.py",
    "audit": "audit.py",
    "add-workers": "add_workers.py",
}
"""The script in workflows/ of every step, in the order of work."""

COMMAND = "emdistill"
"""The console command."""
STARTED_WITH = "EMDISTILL_STARTED_WITH"
"""The variable that tells this process and those that it starts what the user typed."""
A_SCRIPT = "scripts"

_goes_on = ContextVar("_goes_on", default=False)


def module_of(step: str) -> str:
    """The module of `pipeline.commands` that does a step: called like the script, without its number."""
    return re.sub(r"^\d+b?_", "", Path(SCRIPTS[step]).stem)


def step_called(name: str) -> str | None:
    """The step of a name, of the number of a script (`02`), or of a script; None if there is none.

    Args:
        name: as a user types it.
    """
    for step, script in SCRIPTS.items():
        stem = Path(script).stem
        number = stem.partition("_")[0]
        if name in (step, stem, script) or (name == number and number[0].isdigit()):
            return step
    return None


def place_of(script: str) -> int:
    """The place of a script in the order of work; scripts that are not ours come last."""
    scripts = list(SCRIPTS.values())
    return scripts.index(script) if script in scripts else len(scripts)


def script_after(script: str) -> str | None:
    """The script of the step that follows; None after looking at the result, and after scripts that are not ours."""
    scripts = list(SCRIPTS.values())
    if script not in scripts[: scripts.index(SCRIPTS["view"])]:
        return None
    return scripts[scripts.index(script) + 1]


@contextmanager
def goes_on_by_itself() -> Iterator[None]:
    """While the block lasts, no step says what to type next: it is a part of something larger, which goes on."""
    before = _goes_on.set(True)
    try:
        yield
    finally:
        _goes_on.reset(before)


def is_part_of_more() -> bool:
    """Whether what is done now is a part of something larger, as the steps of `run_all.py` are."""
    return _goes_on.get()


def next_command(script: str | None, config: Path, *options: str) -> str:
    """What the user types next, for the end of a step; empty if there is nothing to type.

    Args:
        script: of workflows/; None if there is none.
        config: its argument.
        options: that follow.
    """
    return "" if script is None or is_part_of_more() else command_line(script, config, *options)


def name_of(script: str) -> str:
    """What the user calls a step, for messages: `workflows/05_segment.py` or `emdistill segment`.

    Args:
        script: of workflows/; one that is not ours keeps its name.
    """
    steps = {script: step for step, script in SCRIPTS.items()}
    if script not in steps:
        return script
    if _user_has_scripts():
        return f"workflows/{script}"
    return f"{COMMAND} {steps[script]}"


def command_line(script: str, *arguments: str | Path) -> str:
    """What the user types for a step, for messages: it can be pasted into the shell that the user has.

    Args:
        script: of workflows/, or one that is not ours.
        arguments: of the script.
    """
    if script not in SCRIPTS.values():
        return shell_line("python", Path(script), *arguments)
    if _user_has_scripts():
        return shell_line("python", _path_from_here(script), *arguments)
    return shell_line(*name_of(script).split(), *arguments)


def given_again(settings: Sequence[str]) -> list[str]:
    """The words that give a command the settings `key=value` of another one."""
    return [word for setting in settings for word in ("--set", setting)]


def shell_line(*words: str | Path) -> str:
    """A command for messages, every word quoted for a shell.

    Args:
        words: the program and its arguments; a path that begins with a dash is not taken for an option.
    """
    texts = (f"./{word}" if isinstance(word, Path) and str(word).startswith("-") else str(word) for word in words)
    return shlex.join(texts)


def _path_from_here(script: str) -> Path:
    """The path of a script: short where the user is in the repository, whole elsewhere."""
    short = Path("workflows", script)
    whole = Path(__file__).parents[1] / short
    return whole if whole.exists() and not short.exists() else short


def note_what_the_user_typed(what: str) -> None:
    """Note whether this process was begun with the console command or with a script; the first note stays.

    Args:
        what: `COMMAND` or `A_SCRIPT`.
    """
    os.environ.setdefault(STARTED_WITH, what)


def what_the_user_typed() -> dict[str, str]:
    """That note as variables for a process that is to know it too, perhaps on another machine."""
    return {STARTED_WITH: os.environ[STARTED_WITH]} if STARTED_WITH in os.environ else {}


def _user_has_scripts() -> bool:
    """Whether the user began with a script, or in Python beside a checkout of the repository."""
    started_with = os.environ.get(STARTED_WITH)
    if started_with is not None:
        return started_with == A_SCRIPT
    return (Path(__file__).parents[1] / "workflows" / SCRIPTS["run"]).exists()
