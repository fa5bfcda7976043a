"""Numbers in words are short, whatever they are."""

from __future__ import annotations

import pytest

from pipeline.units import short_number


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0, "0"),
        (0.0251, "0.0251"),
        (999, "999"),
        (999.6, "1 k"),
        (21_484, "21.5 k"),
        (999_700, "1 M"),
        (999_499, "999 k"),
        (2.7e6, "2.7 M"),
        (10**15, "1 P"),
    ],
)
def test_a_number_has_three_digits_and_a_unit(number: float, text: str) -> None:
    assert short_number(number) == text
