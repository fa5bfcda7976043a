"""Numbers in words for people: durations, counts, bytes."""

from __future__ import annotations

from collections.abc import Sequence

KIBI = 1024
THRESHOLD_DECIMALS = 6
"""Decimals up to which two merge thresholds are told apart."""


def duration(seconds: float) -> str:
    """Seconds in the unit that suits; a clock that was set back makes none of them negative."""
    seconds = max(0.0, seconds)
    if seconds < 120:
        return f"{seconds:.1f} s"
    if seconds < 5400:
        return f"{seconds / 60:.1f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 172800 else f"{seconds / 86400:.1f} days"


def short_number(number: float) -> str:
    """Three digits and the unit that suits."""
    for unit in ("", " k", " M", " G", " T"):
        digits = f"{number:.3g}"
        if abs(float(digits)) < 1000:
            return f"{digits}{unit}"
        number /= 1000
    return f"{number:.3g} P"


def memory_size(number: float) -> str:
    """Bytes of memory in binary units."""
    for unit in ("B", "KiB", "MiB"):
        if number < KIBI:
            return f"{number:.0f} {unit}"
        number /= KIBI
    return f"{number:.1f} GiB"


def threshold_name(threshold: float) -> str:
    """A merge threshold as datasets, files and tables name it: `0.50`; further decimals where it has them, `0.325`."""
    whole, _, decimals = f"{threshold:.{THRESHOLD_DECIMALS}f}".rstrip("0").partition(".")
    return f"{whole}.{decimals:0<2}"


def disk_size(count: float) -> str:
    """Bytes on disk in decimal units."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} bytes" if unit == "bytes" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def counted(number: int, noun: str) -> str:
    """`1 segment`, `1,204 segments`: a number and what it counts.

    Args:
        number: how many there are.
        noun: of one of them, whose plural ends in `s`.
    """
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def by(values: Sequence[float]) -> str:
    """Numbers along the axes as `40 x 8 x 8`, fractions as they are."""
    return " x ".join(f"{value:.10g}" for value in values)


def times(shape: Sequence[int]) -> str:
    """An extent as `64×128×128`."""
    return "×".join(str(extent) for extent in shape)
