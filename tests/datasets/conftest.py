"""Small volumes in every format, and an import that returns what arrived."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from imported_sources import import_source
from source_in_place import Step, write_config

from pipeline.commands import import_data
from pipeline.config import FileSource
from pipeline.volumes import RunVolume, open_volume, volume_exists

BLOCK = (4, 16, 16)
Import = Callable[..., dict[str, RunVolume]]


@pytest.fixture
def raw() -> np.ndarray:
    """(9, 37, 50) uint8: no extent is a multiple of a block."""
    return np.random.default_rng(0).integers(0, 256, (9, 37, 50), dtype=np.uint8)


@pytest.fixture
def labels() -> np.ndarray:
    """(9, 37, 50) uint32."""
    return np.random.default_rng(1).integers(0, 1000, (9, 37, 50), dtype=np.uint32)


@pytest.fixture
def imported(tmp_path: Path) -> Import:
    """Import a file source with the given fields; returns the datasets that were written."""

    def run(path: Path, **fields: Any) -> dict[str, RunVolume]:
        container = tmp_path / "run" / "volume.zarr"
        import_source("lab", FileSource(path=str(path), **fields), container, BLOCK)
        names = [name for name in ("raw", "labels", "mask") if volume_exists(container, name)]
        return {name: open_volume(container, name) for name in names}

    return run


@pytest.fixture
def real_data() -> Path:
    """The folder of real labelled data, which `EMDISTILL_DATA` names."""
    folder = os.environ.get("EMDISTILL_DATA")
    if not folder or not Path(folder).is_dir():
        pytest.skip("EMDISTILL_DATA does not name a folder of real data")
    return Path(folder)


@pytest.fixture
def step(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Step:
    """`import_data.py` with a source: its exit status and what it printed."""

    def run(source: Mapping[str, Any], *options: str) -> tuple[int, str]:
        write_config(tmp_path, source)
        monkeypatch.setattr(sys, "argv", ["import_data.py", str(tmp_path / "config.json"), *options])
        monkeypatch.chdir(tmp_path)
        with pytest.raises(SystemExit) as ended:
            import_data.main()
        printed = capsys.readouterr()
        return int(ended.value.code or 0), printed.out + printed.err

    return run
