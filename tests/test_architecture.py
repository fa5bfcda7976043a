"""The house keeps its shape: dependencies point one way, and every package that is imported is declared."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PIPELINE = ROOT / "pipeline"

BASE = [
    "search_path",
    "stop_signals",
    "errors",
    "disk_arrays",
    "small_files",
    "label_ids",
    "offsets",
    "hashing",
    "command_names",
    "units",
    "terminal",
    "checkpoints",
    "config",
    "volumes",
    "run",
]
BASE += ["cli", "pages"]
"""Modules and packages under everything; each may import those before it."""
ALGORITHMS = {"distillation", "networks", "segmentation", "rag", "datasets", "slurm"}
ENGINE_USES = {"rag", "slurm"}
"""What the engine knows of the algorithms: which errors of a database pass, and how jobs are submitted."""
ENGINE = ["blocks", "tracking", "workers", "executors"]
"""Rooms of the engine; each may import those before it."""
ENGINE_TOP = {"chain", "plan", "pilot", "summary", "audit", "status"}
"""Rooms and modules of the engine above those; they may import all of them and each other."""
USES = {"training", "stages", "evaluation", "viewer"}
DOORS = ["whole_run", "api", "api_reference", "commands"]
"""How a user comes in: from Python, and from the command line. Each may import everything, and those before it."""
SIDEWAYS = {("stages", "evaluation"), ("training", "evaluation"), ("viewer", "evaluation")}
"""They choose or show a threshold by its scores; evaluation knows none of them."""
PURE = {"segmentation", "distillation"}
"""Numpy or torch in, numpy or torch out: no config, no files."""
ARITHMETIC = {"errors", "offsets", "hashing", "label_ids"}
"""All that those may import."""

ONLY_IN = {"gunpowder": "training", "tensorboard": "training", "daisy": "engine", "neuroglancer": "viewer"}
ONLY_IN |= {"psycopg": "rag", "pymongo": "rag"}
"""Heavy or old libraries, and the one package that may import each."""

PROGRAMS = {"__main__.py", "job.py"}
"""Modules that are run with `python -m`."""

DISTRIBUTIONS = {
    "skimage": "scikit-image",
    "DracoPy": "dracopy",
    "bioimage_cpp": "bioimage-cpp",
    "cc3d": "connected-components-3d",
    "bson": "pymongo",
}
"""Distributions that are not called like the module that they bring."""
IMPLICIT = {"tensorboard": "torch.utils.tensorboard"}
"""Distributions that are needed by an import that does not name them."""


def modules() -> Iterator[tuple[str, Path]]:
    """Every module of the pipeline with the package that it belongs to; modules at the top are their own."""
    for path in sorted(PIPELINE.rglob("*.py")):
        inside = path.relative_to(PIPELINE).with_suffix("").parts
        if inside != ("__init__",):
            yield inside[0], path


@cache
def tree(path: Path) -> ast.Module:
    """The syntax tree of a file."""
    return ast.parse(path.read_text())


@cache
def imports(path: Path) -> list[str]:
    """Full dotted names of what a file imports, wherever in the file."""
    names: list[str] = []
    package = path.relative_to(ROOT).parent.parts
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            name = ".".join([*base, *([node.module] if node.module else [])])
            names += [f"{name}.{alias.name}" for alias in node.names]
    return names


def inner_dependencies() -> Iterator[tuple[str, str, Path]]:
    """(package, package that it imports, file) for all imports inside the pipeline."""
    for package, path in modules():
        for name in imports(path):
            first, _, rest = name.partition(".")
            target = rest.partition(".")[0]
            if first == "pipeline" and target not in (package, "__version__"):
                yield package, target, path


def allowed(package: str, target: str) -> bool:
    """Whether a package may import another."""
    if package in BASE:
        return target in BASE[: BASE.index(package)]
    if package in PURE:
        return target in ARITHMETIC
    if package in ALGORITHMS:
        return target in BASE
    if package == "engine":
        return target in BASE or target in ENGINE_USES
    if package in DOORS:
        return target not in DOORS or target in DOORS[: DOORS.index(package)]
    return target in {*BASE, *ALGORITHMS, "engine"} or (package, target) in SIDEWAYS


def allowed_in_engine(room: str, target: str) -> bool:
    """Whether a room of the engine may import another."""
    if room in ENGINE:
        return target in ENGINE[: ENGINE.index(room)]
    return target in {*ENGINE, *ENGINE_TOP}


def test_every_package_has_its_place() -> None:
    assert {package for package, _ in modules()} <= {*BASE, *ALGORITHMS, "engine", *USES, *DOORS}


def test_dependencies_point_one_way() -> None:
    wrong = {
        f"{path.relative_to(ROOT)} imports pipeline.{target}"
        for package, target, path in inner_dependencies()
        if not allowed(package, target)
    }
    assert not wrong


def test_rooms_of_the_engine_point_one_way() -> None:
    wrong = set()
    for path in (PIPELINE / "engine").rglob("*.py"):
        room = path.relative_to(PIPELINE / "engine").with_suffix("").parts[0]
        for name in imports(path):
            parts = name.split(".")
            if parts[:2] != ["pipeline", "engine"] or len(parts) < 3 or parts[2] == room or room == "__init__":
                continue
            if not allowed_in_engine(room, parts[2]):
                wrong.add(f"{path.relative_to(ROOT)} imports pipeline.engine.{parts[2]}")
    assert not wrong


def test_nothing_below_the_workflows_imports_them() -> None:
    assert not [path for _, path in modules() for name in imports(path) if name.split(".")[0] == "workflows"]


@pytest.mark.parametrize(("library", "home"), ONLY_IN.items())
def test_a_library_is_imported_in_one_package_only(library: str, home: str) -> None:
    users = {package for package, path in modules() for name in imports(path) if library in name.split(".")}
    assert users <= {home}


def test_the_engine_unpickles_nothing() -> None:
    """Whoever could write into a run directory could have a pickle do anything."""
    picklers = {"pickle", "cloudpickle", "dill", "shelve", "marshal"}
    wrong = {path for path in (PIPELINE / "engine").rglob("*.py") if picklers & set(imports(path))}
    assert not wrong


def test_nothing_prints_below_the_commands() -> None:
    prints = {
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for package, path in modules()
        if package != "commands"
        for node in ast.walk(tree(path))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
    }
    assert not prints


def test_nothing_below_the_workflows_sets_up_logging_or_evaluates_text() -> None:
    calls = {
        f"{path.relative_to(ROOT)}: {ast.unparse(node.func)}"
        for package, path in modules()
        if package != "cli" and path.name not in PROGRAMS
        for node in ast.walk(tree(path))
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("logging.basicConfig", "eval", "exec")
    }
    assert not calls


def declared() -> set[str]:
    """Distributions that setup.py installs, or offers to."""
    setup = ast.parse((ROOT / "setup.py").read_text())
    given = {
        node.arg: ast.literal_eval(node.value)
        for node in ast.walk(setup)
        if isinstance(node, ast.keyword) and node.arg in ("install_requires", "extras_require")
    }
    offered = [name for extra in ("cpu", "int8", "export") for name in given["extras_require"][extra]]
    requirements = [*given["install_requires"], *offered]
    return {re.split(r"[<>=!~ \[]", name, maxsplit=1)[0].lower() for name in requirements}


def imported_distributions() -> set[str]:
    """Distributions of all third-party modules that pipeline and workflows import."""
    files = [path for _, path in modules()] + sorted((ROOT / "workflows").glob("*.py"))
    names = {name for path in files for name in imports(path)}
    found = {name.split(".")[0] for name in names if not name.startswith("funlib.")}
    found |= {".".join(name.split(".")[:2]) for name in names if name.startswith("funlib.")}
    found |= {distribution for distribution, module in IMPLICIT.items() if any(n.startswith(module) for n in names)}
    return {DISTRIBUTIONS.get(name, name) for name in found - {"pipeline"} - set(sys.stdlib_module_names)}


def test_every_import_is_declared() -> None:
    assert not imported_distributions() - declared()


def test_the_docs_name_only_tests_that_exist() -> None:
    """METHODS.md says in tables which test of a folder holds what, by the name of the file alone."""
    pages = {*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")}
    named = {name for page in pages for name in re.findall(r"((?:\w+/)*test_\w+\.py)(?:::(\w+))?", page.read_text())}
    assert len(named) > 50
    assert not {
        (file, test)
        for file, test in named
        if not any(f"def {test}" in path.read_text() for path in ROOT.glob(file if "/" in file else f"tests/**/{file}"))
    }


def test_architecture_md_names_every_room() -> None:
    text = (ROOT / "docs" / "ARCHITECTURE.md").read_text()
    rooms = {path.parent.relative_to(PIPELINE) for path in PIPELINE.rglob("__init__.py")} - {Path()}
    rooms -= {Path("datasets/phantom")}  # a data set with several modules
    tree_of_rooms = text.split("```")[1]
    assert not {str(room) for room in rooms if f" {room.name}/" not in tree_of_rooms}
    files = {path.name for path in PIPELINE.glob("*.py")} - {"__init__.py"}
    assert not {name for name in files if name not in tree_of_rooms}
    assert not {name for name in re.findall(r"tests/[\w/]+\.py", text) if not (ROOT / name).exists()}  # helpers, too
    walk = text.split("## How raw and the config travel")[1].split("## On disk")[0]
    shown = re.findall(r"(?:workflows|commands|datasets|training|stages|engine|evaluation)/[\w/]+\.py", walk)
    assert len(shown) > 15 and not [n for n in shown if not any((base / n).exists() for base in (ROOT, PIPELINE))]


def test_modules_stay_readable() -> None:
    assert not {str(path) for _, path in modules() if len(path.read_text().splitlines()) > 330}
