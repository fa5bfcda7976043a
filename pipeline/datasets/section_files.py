"""A stack as a folder of TIFF files, one per section: which files, and in which order."""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from ..errors import UserError

SUFFIXES = (".tif", ".tiff")


def is_tiff(path: Path) -> bool:
    """Whether a file is named like a TIFF file."""
    return path.suffix.lower() in SUFFIXES


def section_files(folder: Path) -> list[Path]:
    """The TIFF files of a folder in the order of their names."""
    return sorted(file for file in folder.iterdir() if is_tiff(file) and not file.name.startswith("."))


def numbered_sections(folder: Path, where: str) -> list[Path]:
    """The TIFF files of a folder in the order of their numbers.

    Raises:
        UserError: there are none, or their numbers are in doubt: several that differ, duplicates, different widths,
        gaps.
    """
    files = section_files(folder)
    if not files:
        raise UserError(f"{folder} holds no TIFF files (*.tif, *.tiff), and is no zarr or N5 container", where)
    numbers = dict(zip(files, _counting_numbers(files, folder, where), strict=True))
    _require_one_each(numbers, folder, where)
    _require_one_width(numbers, folder, where)
    _require_no_gaps(numbers, folder, where)
    return sorted(files, key=lambda file: int(numbers[file]))


def _counting_numbers(files: Sequence[Path], folder: Path, where: str) -> list[str]:
    """For each file the number in its name that counts the sections: the only one that differs between the files."""
    parts = [re.split(r"(\d+)", file.stem) for file in files]
    texts = {tuple(part[::2]) for part in parts}
    if len(texts) > 1:
        first, second = ("<number>".join(text) for text in sorted(texts)[:2])
        raise UserError(f"{folder} mixes files of several names ({first}, {second}); keep one stack per folder", where)
    columns = list(zip(*(part[1::2] for part in parts), strict=True))
    if not columns:
        raise UserError(f"{files[0].name} in {folder} has no section number; name the files like z0001.tif", where)
    counting = [column for column in columns if len(set(column)) > 1] or columns[-1:]
    if len(counting) > 1:
        raise UserError(
            f"several numbers differ between the names in {folder} (as in {files[0].name}, {files[-1].name}); leave"
            " only the section number",
            where,
        )
    return list(counting[0])


def _require_one_each(numbers: Mapping[Path, str], folder: Path, where: str) -> None:
    seen: dict[int, Path] = {}
    for file, number in numbers.items():
        if int(number) in seen:
            other = seen[int(number)].name
            raise UserError(f"section {int(number)} exists twice in {folder}: {other} and {file.name}", where)
        seen[int(number)] = file


def _require_one_width(numbers: Mapping[Path, str], folder: Path, where: str) -> None:
    """Numbers that are not padded sort differently by name and by value: tools disagree about their order."""
    shortest = min(numbers, key=lambda file: len(numbers[file]))
    longest = max(numbers, key=lambda file: len(numbers[file]))
    if len(numbers[shortest]) != len(numbers[longest]):
        raise UserError(
            f"the section numbers in {folder} differ in width ({shortest.name}, {longest.name}), so that their order"
            f" is in doubt; pad them with zeros to {len(numbers[longest])} digits",
            where,
        )


def _require_no_gaps(numbers: Mapping[Path, str], folder: Path, where: str) -> None:
    present = sorted(int(number) for number in numbers.values())
    gap = next((a + 1 for a, b in itertools.pairwise(present) if b != a + 1), None)
    if gap is not None:
        raise UserError(
            f"section {gap} is missing in {folder} ({len(present)} files, numbers {present[0]} to {present[-1]}); add"
            " it (blank if it is lost), or renumber",
            where,
        )
