"""Intensities as meant: the range that is used, not that of the type."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.errors import UserError
from pipeline.networks.intensity import normalise_raw
from pipeline.volumes.intensity import IntensityRange, intensity_range, strong_difference
from pipeline.volumes.locations import Location
from pipeline.volumes.opening import Wanted, open_at
from pipeline.volumes.volume import Volume

SHAPE = (40, 70, 75)
EIGHT_BITS = np.random.default_rng(0).normal(120, 30, SHAPE).clip(1, 255).astype("u1")


def volume_of(tmp_path: Path, data: np.ndarray) -> Volume:
    """The data as a volume."""
    np.save(tmp_path / "raw.npy", data)
    volume = open_at(Location.of(tmp_path / "raw.npy"), Wanted(placed=False))
    assert volume is not None
    return volume


def test_eight_bits_use_the_whole_range_to_the_bit_as_ever(tmp_path: Path) -> None:
    found = intensity_range(volume_of(tmp_path, EIGHT_BITS))
    assert (found.low, found.high) == (0, 255)
    assert found.text == "intensity 0 to 255 (the type uint8)"
    every = np.arange(256, dtype="u1")
    assert np.array_equal(found.normalised(every), normalise_raw(every))
    whole = intensity_range(volume_of(tmp_path, EIGHT_BITS.astype("u2")), "dtype")
    many = np.arange(2**16, dtype="u2")
    assert np.array_equal(whole.normalised(many), normalise_raw(many))


@pytest.mark.parametrize(
    ("dtype", "factor", "shift"),
    [("uint16", 16, 0), ("int16", 100, -20000), ("int8", 0.5, -100), ("float32", 1 / 255, 0), ("float16", 1 / 64, -2)],
)
def test_the_same_image_in_any_type_looks_the_same(tmp_path: Path, dtype: str, factor: float, shift: float) -> None:
    stored = (EIGHT_BITS.astype(float) * factor + shift).astype(dtype)
    same = volume_of(tmp_path, EIGHT_BITS)
    expected = intensity_range(same, "percentiles").normalised(EIGHT_BITS)
    found = intensity_range(volume_of(tmp_path, stored))
    assert np.abs(found.normalised(stored) - expected).max() < (0.03 if dtype != "int8" else 0.06)
    assert found.source == "percentiles 0.1 and 99.9 of a sample"


def test_the_measured_range_is_that_of_the_image_whatever_surrounds_it(tmp_path: Path) -> None:
    image = (EIGHT_BITS * 16.0).astype("u2")
    image[:, 35:] = 0
    found = intensity_range(volume_of(tmp_path, image))
    assert 300 < found.low < 700 and 3000 < found.high < 3700
    assert found == intensity_range(volume_of(tmp_path, image))


def test_a_range_of_the_config_is_used_and_values_outside_are_cut_off(tmp_path: Path) -> None:
    found = intensity_range(volume_of(tmp_path, EIGHT_BITS.astype("i2")), (-10.0, 90.0))
    values = found.normalised(np.array([-300, -10, 40, 90, 300], "i2"))
    assert values.tolist() == [-1, -1, 0, 1, 1] and values.dtype == np.float32
    assert IntensityRange(**found.as_json()) == found


@pytest.mark.parametrize(
    ("data", "setting", "message"),
    [
        (EIGHT_BITS.astype("f4"), "dtype", "has no full range"),
        (np.where(EIGHT_BITS > 200, np.nan, EIGHT_BITS).astype("f4"), "auto", "NaN"),
        (np.full((4, 4, 4), 7, "u2"), "auto", "all sampled intensities .* are 7"),
        (EIGHT_BITS.astype("u8"), "auto", "is uint64; raw intensities are uint8"),
        (EIGHT_BITS, (5.0, 5.0), "is no range"),
    ],
)
def test_what_has_no_range_is_refused(tmp_path: Path, data: np.ndarray, setting: Any, message: str) -> None:
    with pytest.raises(UserError, match=message) as refused:
        intensity_range(volume_of(tmp_path, data), setting, where="volumes.sources.s.intensity")
    assert refused.value.where == "volumes.sources.s.intensity"


def test_a_volume_whose_range_differs_strongly_is_told() -> None:
    trained = IntensityRange(0, 255, "the type uint8")
    assert strong_difference(trained, IntensityRange(20, 240, "percentiles")) is None
    assert strong_difference(trained, IntensityRange(0, 4095, "percentiles")) == "0 to 255 against 0 to 4095"
    assert strong_difference(trained, IntensityRange(100, 140, "percentiles")) is not None
