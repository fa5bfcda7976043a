"""Any file of a run directory, damaged in any way: a command ends well with the same bits, or tells in a few lines."""

from __future__ import annotations

import json
import os
import random
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mutations import damaged
from script_calls import call
from script_logging import keep_logging  # noqa: F401  a fixture for all tests here
from voronoi_run import everything

from pipeline.config import SectionUnetConfig, dump_config, load_config
from pipeline.networks import build_network, save_checkpoint
from pipeline.run import Run
from pipeline.volumes import create_volume

SHAPE = (8, 48, 40)
BLOCK = (4, 24, 24)
NETWORK = SectionUnetConfig(sections=1, widths=(4, 6), embedding_channels=4)
CHAIN = ("predict", "fragments", "agglomerate", "segment")
"""The commands that compute, in their order."""
LEFT_ALONE = ("logs", "report.html", "lock")
"""What no command reads, and the lock, whose contents are for people."""


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A config beside a run directory in which everything is done."""
    folder = tmp_path_factory.mktemp("fuzz")
    chance = np.random.default_rng(3)
    source = folder / "source.zarr"
    cells = np.kron(np.arange(1, 31, dtype=np.uint64).reshape(2, 5, 3), np.ones((4, 10, 14), np.uint64))
    cells = cells[:, : SHAPE[1], : SHAPE[2]]
    padded = np.zeros(SHAPE, np.uint64)
    padded[:, : cells.shape[1], : cells.shape[2]] = cells
    for name, array in (("raw", chance.integers(1, 255, SHAPE).astype(np.uint8)), ("labels", padded)):
        volume = create_volume(source, name, SHAPE, array.dtype, chunks=BLOCK, voxel_size=(40, 8, 8))
        volume.write(volume.box, array)
    document: dict[str, Any] = {
        "run_directory": str(folder / "run"),
        "volumes": {
            "sources": {"a": {"kind": "file", "path": str(source), "intensity": "percentiles"}},
            "segment": {"source": "a"},
        },
        "student": {"network": dump_config(NETWORK), "distillation": None},
        "predict": {"block_size": list(BLOCK), "tile_size": [4, 48, 24]},
        "fragments": {"context": [1, 4, 4], "seed_distance": 2, "boundary_threshold": 0.4},
        "agglomerate": {"context": [1, 4, 4]},
        "segment": {"thresholds": [0.5]},
        "evaluate": {"sweep": [0.4, 0.5], "minimum_size": 0},
        "cluster": {"executor": "serial", "passing_pause": 0.01, "passing_retries": 1},
    }
    config = folder / "config.json"
    config.write_text(json.dumps(document))
    run = Run(load_config(config))
    torch.manual_seed(5)
    save_checkpoint(run.network_directory("student") / "checkpoint_0000001.pt", build_network(NETWORK), 1, {})
    lines = [{"iteration": i, "loss": 1 / i, "learning_rate": 0.1, "seconds": 1.0, "weights": {}} for i in range(1, 9)]
    curves = run.network_directory("student") / "curves.jsonl"
    curves.write_text("".join(json.dumps(line) + "\n" for line in lines))
    for step in CHAIN:
        called = call(step, str(config))
        assert called.status == 0, (step, called)
    assert call("evaluate", str(config)).status == 0
    assert call("view", str(config), "--report").status == 0
    shutil.copytree(folder / "run", folder / "kept")
    return config


def files_of(directory: Path) -> dict[str, list[Path]]:
    """The files of a run directory by kind: those whose paths differ in numbers alone are of one."""
    kinds: dict[str, list[Path]] = {}
    for path in sorted(directory.rglob("*")):
        inside = path.relative_to(directory)
        if path.is_file() and not set(LEFT_ALONE) & set(inside.parts):
            kinds.setdefault(re.sub(r"[0-9a-f]{16}|\d+", "#", str(inside)), []).append(inside)
    return kinds


def restored(config: Path) -> Path:
    """The run directory as it was when everything was done."""
    directory = config.parent / "run"
    shutil.rmtree(directory, ignore_errors=True)
    shutil.copytree(config.parent / "kept", directory)
    return directory


def results(config: Path) -> dict[str, np.ndarray]:
    """All that the run has computed."""
    return everything(Run(load_config(config)))


def finish(config: Path, *options: str) -> Iterator[str]:
    """Run all commands that compute until one does not end well; what is wrong, if anything."""
    for step in CHAIN:
        called = call(step, str(config), *options)
        yield called.complaint()
        if called.status != 0:
            yield "stopped"
            return


def what_is_wrong(config: Path, expected: dict[str, np.ndarray], step: str, scores: str, inside: Path) -> str:
    """What is wrong with how a command dealt with damage to a file; empty if nothing is."""
    if step == "finish":
        for complaint in finish(config):
            if complaint:
                return "" if complaint == "stopped" else complaint
        if "/c/" in str(inside) and difference(config, expected):
            called = call("audit", str(config))  # of stages that are done, no command but this one looks at shards
            return called.complaint() or ("" if called.status else f"nobody tells: {called.output}")
    else:
        name, *options = step.split()
        called = call(name, str(config), *options)
        if called.complaint() or called.status != 0:
            return called.complaint()
        if name == "evaluate":
            return "" if called.output == scores else f"other scores: {called.output}"
        if name != "audit":
            return ""
    return difference(config, expected)


def difference(config: Path, expected: dict[str, np.ndarray]) -> str:
    """The first thing that is not as it was; empty if there is none."""
    try:
        now = results(config)
    except Exception as error:  # whatever a file that was not mended leads to
        return f"ended well, but the results cannot be read: {error}"
    wrong = [name for name in expected if name not in now or not np.array_equal(now[name], expected[name], True)]
    return f"ended well, but {', '.join(wrong)} are other ones" if wrong else ""


STEPS = (*["finish"] * 4, *["audit"] * 3, "status", "status --json", "evaluate", "view --report", "view --dry-run")
STEPS += ("segment --dry-run", "run --dry-run", "add-workers --dry-run")


def fuzz(config: Path, cases: int, seed: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Damage a file and call a command, many times."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    kinds = files_of(config.parent / "kept")
    restored(config)
    expected, scores = results(config), call("evaluate", str(config)).output
    wrong = []
    for number in range(cases):
        chance = random.Random(f"{seed} {number}")
        kind = chance.choice(list(kinds))
        inside, step = chance.choice(kinds[kind]), chance.choice(STEPS)
        path = restored(config) / inside
        path.write_bytes(damaged(path.read_bytes(), chance))
        complaint = what_is_wrong(config, expected, step, scores, inside)
        if complaint:
            wrong.append(f"case {seed} {number}, {inside}, {step}: {complaint}")
    assert not wrong, f"{len(wrong)} of {cases} attacks:\n" + "\n".join(wrong)


def test_damage_to_any_file_is_mended_or_told(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fuzz(finished, int(os.environ.get("EMDISTILL_FUZZ", "50")), os.environ.get("EMDISTILL_SEED", "short"), monkeypatch)


@pytest.mark.slow
def test_much_damage_to_any_file_is_mended_or_told(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fuzz(finished, 1200, "long", monkeypatch)
