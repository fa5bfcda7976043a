"""Files of exports that are damaged or lost: the audit finds each, and the same command makes them again."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from voronoi_run import make_run, store_affinities

from pipeline.api import agglomerate, extract_fragments, segment
from pipeline.engine.audit.arrays import Damage, audit_stages
from pipeline.engine.audit.requeue import requeue
from pipeline.engine.blocks.stage import BlockTask
from pipeline.errors import UserError
from pipeline.run import Run
from pipeline.stages.auditing import audit, audited_exports
from pipeline.stages.export.targets import ExportOptions, export_run, note_export, noted_exports, written_stages

THRESHOLD = 0.45
EXPORTS: dict[str, dict[str, Any]] = {
    "precomputed": {"arrays": ("raw", "segmentation"), "meshes": True, "skeletons": True, "minimum_size": 50},
    "ngff": {"ngff": "0.5"},
    "ngff-0.4": {"ngff": "0.4", "arrays": ("raw", "segmentation")},
    "webknossos": {},
    "pychunkedgraph": {},
}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Run:
    run = make_run(tmp_path_factory.mktemp("run"), pyramid={"smallest": 20}, segment={"thresholds": [THRESHOLD]})
    store_affinities(run)
    assert extract_fragments(run) and agglomerate(run) and segment(run)
    return run


def flip(path: Path) -> None:
    """Turn the byte in the middle round."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)


def one_of_each_folder(folder: Path) -> list[Path]:
    """The largest file of every folder, and every file at the top."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    largest = {path.parent: path for path in sorted(files, key=lambda path: path.stat().st_size)}
    return sorted({*largest.values(), *(path for path in files if path.suffix in (".json", "") or "zarr" in path.name)})


def one_of_each_kind(folder: Path) -> list[Path]:
    """Of files whose paths differ in numbers alone, one: of all levels and folders of chunks."""
    kinds = {re.sub(r"\d+", "#", str(path.relative_to(folder))): path for path in one_of_each_folder(folder)}
    return sorted(kinds.values())


def contents(folder: Path) -> dict[Path, bytes]:
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def is_sound(run: Run) -> bool:
    stages, lost = audited_exports(run)
    return not lost and all(found.sound for found in audit_stages(stages).values())


@pytest.fixture(autouse=True)
def _no_others(finished: Run) -> None:
    """Exports of earlier tests are not looked at."""
    shutil.rmtree(finished.tracking / "exports", ignore_errors=True)


@pytest.mark.parametrize("name", EXPORTS)
def test_the_same_command_makes_damaged_and_lost_files_again(tmp_path: Path, finished: Run, name: str) -> None:
    options = ExportOptions(name.partition("-")[0], str(tmp_path), THRESHOLD, **EXPORTS[name])  # type: ignore[arg-type]
    assert export_run(finished, options)
    before = contents(tmp_path)
    assert is_sound(finished)
    for path in one_of_each_kind(tmp_path):
        content = path.read_bytes()
        flip(path)
        assert not is_sound(finished), f"{path} is damaged"
        path.write_bytes(content)
    damages: list[Callable[[Path], None]] = [flip, Path.unlink]
    for first in range(2):
        for number, path in enumerate(one_of_each_folder(tmp_path)):
            damages[(number + first) % 2](path)
        findings = audit(finished)
        assert not all(found.sound for found in findings)
        requeue(findings)
        assert export_run(finished, options)
        assert contents(tmp_path) == before
        assert is_sound(finished)


def test_what_the_run_keeps_for_an_export_is_checked_too(tmp_path: Path, finished: Run) -> None:
    chosen = EXPORTS["precomputed"] | {"arrays": ("segmentation",)}
    options = ExportOptions("precomputed", str(tmp_path), THRESHOLD, **chosen)
    assert export_run(finished, options)
    before = contents(tmp_path)
    pieces = sorted(finished.tracking.rglob("*.pieces"), key=lambda path: path.stat().st_size)
    flip(pieces[-1])
    pieces[-2].unlink()
    findings = {found.stage.name: found for found in audit(finished)}
    assert sum(found.count(Damage.CHANGED) for found in findings.values()) == 1
    assert sum(found.count(Damage.MISSING) for found in findings.values()) == 1
    requeue(list(findings.values()))
    assert export_run(finished, options)
    assert is_sound(finished) and contents(tmp_path) == before
    for name in ("segments", "view"):
        flip(finished.luts / f"{name}_{THRESHOLD:g}.npy")
        findings = {found.stage.name: found for found in audit(finished)}
        assert findings[f"segments_{THRESHOLD:g}"].unsound
        requeue(list(findings.values()))
        assert export_run(finished, options)
        assert is_sound(finished) and contents(tmp_path) == before


def test_a_file_without_a_checksum_is_told(tmp_path: Path, finished: Run) -> None:
    options = ExportOptions("precomputed", str(tmp_path), THRESHOLD, ("segmentation",))
    assert export_run(finished, options)
    task = next(stage for stage in written_stages(finished) if isinstance(stage, BlockTask))
    task.records.path.unlink()
    findings = {found.stage.name: found for found in audit(finished)}
    assert findings[task.name].count(Damage.UNRECORDED) == len(task.grid)


def test_an_export_that_is_deleted_is_told_and_made_again(tmp_path: Path, finished: Run) -> None:
    options = ExportOptions("precomputed", str(tmp_path / "out"), THRESHOLD, ("segmentation",))
    assert export_run(finished, options)
    before = contents(tmp_path / "out")
    (tmp_path / "out").rename(tmp_path / "elsewhere")
    assert any("is gone" in found.unsound for found in audit(finished))
    assert export_run(finished, options)
    assert contents(tmp_path / "out") == before


def test_a_refused_export_does_not_hide_the_one_that_is_there(tmp_path: Path, finished: Run) -> None:
    assert export_run(finished, ExportOptions("precomputed", str(tmp_path / "out"), THRESHOLD))
    refused = ExportOptions("precomputed", str(tmp_path / "out"), 0.3)
    with pytest.raises(UserError):
        export_run(finished, refused)
    assert all(options.threshold == THRESHOLD for options in noted_exports(finished))
    note_export(finished, refused)  # as if it had been noted nevertheless, or never begun
    assert is_sound(finished)
    for path in (tmp_path / "out" / "segmentation" / "s0").glob("*.shard"):
        path.unlink()
    assert sum(found.count(Damage.MISSING) for found in audit(finished)) > 0
