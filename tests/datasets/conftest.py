"""Small volumes in every format, and an import that returns what arrived."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from imported_sources import import_source

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
