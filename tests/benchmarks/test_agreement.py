"""How well affinities tell apart what a reference holds apart, against all pairs one by one."""

from __future__ import annotations

import numpy as np
import pytest
from gain.agreement import told_apart


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
