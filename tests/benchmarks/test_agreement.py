"""How well affinities tell apart what a reference holds apart, against all pairs one by one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from gain.agreement import area_between_neighbours, told_apart
from voronoi_run import make_run, store_affinities, voronoi_cells

from pipeline.volumes import create_volume


def test_the_area_is_that_over_all_pairs() -> None:
    rng = np.random.default_rng(4)
    affinities, reference = rng.integers(100, 120, (2, 3, 5, 4), dtype=np.uint8), rng.integers(0, 256, (2, 3, 5, 4))
    apart, together = affinities[reference < 128].astype(int), affinities[reference >= 128].astype(int)
    higher = together[:, None] - apart
    expected = ((higher > 0) + 0.5 * (higher == 0)).mean()
    assert told_apart(affinities, reference) == pytest.approx(expected)


def test_perfect_useless_and_inverted_affinities() -> None:
    reference = np.array([0, 10, 127, 128, 200, 255], np.uint8)
    assert told_apart(reference, reference) == 1
    assert told_apart(255 - reference, reference) == 0
    assert told_apart(np.full_like(reference, 7), reference) == 0.5


def test_a_reference_without_boundaries_tells_nothing() -> None:
    with pytest.raises(ValueError, match="apart"):
        told_apart(np.zeros(3, np.uint8), np.full(3, 255, np.uint8))


def test_neighbours_of_a_run_are_told_apart_along_each_axis(tmp_path: Path) -> None:
    """Affinities of the run are above 0.6 inside of cells and below 0.5 between them: none is wrong."""
    run = make_run(tmp_path / "run")
    shape = store_affinities(run).shape[1:]
    labels = create_volume(run.volume, "labels", (9, 42, 38), "uint64", chunks=(4, 16, 16), voxel_size=(40, 8, 8))
    cells = np.zeros(labels.shape, np.uint64)
    cells[1:, 2:, 3:] = voronoi_cells(shape) + 1
    labels.write(labels.box, cells)
    assert area_between_neighbours(run) == 1
    labels.write(labels.box, np.roll(cells, 2, axis=2))
    assert 0.5 < area_between_neighbours(run) < 0.9
