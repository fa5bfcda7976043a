"""Numbers in words are short, whatever they are."""

from __future__ import annotations

import pytest

from pipeline.units import short_number, threshold_name


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


@pytest.mark.parametrize(
    ("threshold", "name"),
    [(0, "0.00"), (0.5, "0.50"), (0.325, "0.325"), (0.30000000000000004, "0.30"), (1 / 3, "0.333333"), (1, "1.00")],
)
def test_a_threshold_has_two_decimals_and_more_where_it_has_them(threshold: float, name: str) -> None:
    assert threshold_name(threshold) == name
