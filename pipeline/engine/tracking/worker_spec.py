"""What a worker process is told: a JSON file that the driver writes for each task, and variables of its environment.

The file names the class of the stage by module and name; a stage of a user's own script is found in that script, which
the worker runs as a module: only what stands under `if __name__ == "__main__":` is left out. Nothing is unpickled.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import json
import os
import sys
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from types import ModuleType
from typing import Any

from ...config import dump_config, parse_config
from ...errors import UserError
from ...run import Run, read_json, replaced_file
from ...search_path import absolute
from ..blocks.stage import BlockTask
from .ownership import PRIVATE_FILE, require_own

SPEC = "worker.json"
"""Name of the file in the tracking folder of a task."""
MAIN_MODULES = ("__main__", "__mp_main__")
"""Names of the module that a process was started with: by a user, and by `multiprocessing`."""
SCRIPT_MODULE = "__worker_main__"
"""Name of the same module in a worker."""


@dataclass(frozen=True)
class WorkerSpec:
    """What a worker process is to do.

    Attributes:
        module, name: where the class of the stage is defined, and its name there.
        script: the script that defines it in place of a module; empty if a module does.
        parameters: what the class is given besides the run.
        key: of the stage, as the driver worked it out.
        config: of the run, with what the driver decided; its `run_directory` is absolute.
        search_path: where Python finds modules, after where it finds them anyway.
        address, port, secret: of the driver's server.
    """

    module: str
    name: str
    script: str
    parameters: dict[str, Any]
    key: str
    config: dict[str, Any]
    search_path: list[str]
    address: str
    port: int
    secret: str = field(repr=False)

    @staticmethod
    def of_task(task: BlockTask, address: str, port: int, secret: str) -> WorkerSpec:
        """The spec of all workers of a task.

        Raises:
            UserError: a worker could not find the class of the stage, or its parameters are no JSON values.
        """
        module, script = _home_of(type(task))
        return WorkerSpec(
            module=module,
            name=type(task).__qualname__,
            script=script,
            parameters=_parameters_of(task),
            key=task.key,
            config=dump_config(task.config_for_workers()),
            search_path=absolute(sys.path),
            address=address,
            port=port,
            secret=secret,
        )

    def save(self, path: Path) -> None:
        """Write the file, readable for its owner only.

        Raises:
            UserError: the folder cannot be written.
        """
        with replaced_file(path) as file:
            os.fchmod(file.fileno(), PRIVATE_FILE)
            file.write(json.dumps(asdict(self), indent=2).encode())

    @staticmethod
    def load(path: Path, tracking: Path | None = None) -> WorkerSpec:
        """Read the file, if only this user can have written it.

        Args:
            path: the file.
            tracking: the folder around it that nobody else may enter.

        Raises:
            UserError: it belongs to somebody else, or others may change it.
            ValueError, TypeError: it is none.
        """
        require_own(path, tracking)
        return WorkerSpec(**read_json(path))

    @functools.cached_property
    def task(self) -> BlockTask:
        """The task that the driver has, made again; from now on this process imports from where the driver does, too.

        Raises:
            ImportError, AttributeError, TypeError: there is no such stage.
        """
        sys.path.extend(entry for entry in self.search_path if entry not in sys.path)
        home = _run_script(Path(self.script)) if self.script else importlib.import_module(self.module)
        kind = functools.reduce(getattr, self.name.split("."), home)
        if not (isinstance(kind, type) and issubclass(kind, BlockTask)):
            raise TypeError(f"{self.module}.{self.name} is no stage")
        parameters = {name: _with_tuples(value) for name, value in self.parameters.items()}
        task = kind(run=Run(parse_config(self.config)), **parameters)
        task.take_key(self.key)
        return task


def worker_spec_path(task: BlockTask) -> Path:
    """Where the driver leaves the spec for the workers of a task."""
    return task.folder / SPEC


def tracking_of(spec: Path) -> Path:
    """The tracking folder of the run that a spec lies in: `tracking/<task>/<key>/worker.json`."""
    return spec.parents[2]


def worker_key(task: BlockTask, worker: str) -> str:
    """Under which name a worker reports to its driver."""
    return f"{task.name}/{worker}"


def _home_of(kind: type[BlockTask]) -> tuple[str, str]:
    """Module of a class, and the script that it is in if it is in no module that could be imported."""
    if "<locals>" in kind.__qualname__:
        raise UserError(f"the stage {kind.__name__} must be defined at the top of a module, where workers find it")
    if kind.__module__ not in MAIN_MODULES:
        return kind.__module__, ""
    main = sys.modules[kind.__module__]
    if main.__spec__ is not None:  # it was started with `python -m`
        return main.__spec__.name, ""
    if getattr(main, "__file__", None) is None:
        raise UserError(f"the stage {kind.__name__} is defined in no file; put it into a script, where workers find it")
    return SCRIPT_MODULE, os.path.abspath(str(main.__file__))  # noqa: PTH100  as it was called, links and all


def _run_script(path: Path) -> ModuleType:
    """A script as a module; once, since its classes must stay the same."""
    if SCRIPT_MODULE not in sys.modules:
        spec = importlib.util.spec_from_file_location(SCRIPT_MODULE, path)
        if spec is None or spec.loader is None:
            raise ImportError(f"{path} is no Python script")
        sys.modules[SCRIPT_MODULE] = module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    return sys.modules[SCRIPT_MODULE]


def _parameters_of(task: BlockTask) -> dict[str, Any]:
    """What the task was made with besides its run."""
    parameters = {given.name: getattr(task, given.name) for given in fields(task) if given.init and given.name != "run"}
    for name, value in parameters.items():
        try:
            fits = _with_tuples(json.loads(json.dumps(value))) == value
        except (TypeError, ValueError):
            fits = False
        if not fits:
            raise UserError(f"{name} of the stage {type(task).__name__} must be text, a number, or a tuple of these")
    return parameters


def _with_tuples(value: Any) -> Any:
    """A JSON value with tuples, as dataclasses have them, in place of lists."""
    return tuple(map(_with_tuples, value)) if isinstance(value, list) else value
