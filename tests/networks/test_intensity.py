"""Raw intensities reach the networks in [-1, 1], whatever their type."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.networks import normalise_raw


@pytest.mark.parametrize(("dtype", "largest"), [(np.uint8, 255), (np.uint16, 65535)])
def test_whole_range_of_the_type(dtype: type, largest: int) -> None:
    result = normalise_raw(np.array([0, largest // 2, largest], dtype=dtype))
    assert result.dtype == np.float32
    np.testing.assert_allclose(result, [-1, 0, 1], atol=0.01)
    assert result.min() == -1 and result.max() == 1


def test_blocks_agree_whatever_they_contain() -> None:
    dark, bright = np.array([10, 20], np.uint8), np.array([10, 250], np.uint8)
    assert normalise_raw(dark)[0] == normalise_raw(bright)[0]


def test_other_types_are_refused() -> None:
    with pytest.raises(TypeError, match="float32"):
        normalise_raw(np.zeros(3, np.float32))
