"""What an export says of its segments, of which there may be more than memory holds."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from pipeline.stages.export import description
from pipeline.stages.export.description import RowsAsList, image_label, segment_properties
from pipeline.stages.export.segments import SEGMENT


def segments(count: int) -> np.ndarray:
    chance = np.random.default_rng(0)
    table = np.zeros(count, SEGMENT)
    table["id"] = np.sort(chance.integers(1, 2**63, count, dtype=np.uint64))
    table["size"], table["fragments"] = chance.integers(1, 2**32, count), chance.integers(1, 99, count)
    table["centre"] = 1e6 * chance.random((count, 3))
    return table


def written(path: Path, document: object) -> object:
    with path.open("w") as file:
        json.dump(document, file, indent=1)
    return json.loads(path.read_text())


def test_a_list_of_rows_is_written_a_few_rows_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(description, "ROWS", 10)
    table, asked = segments(25), list[int]()

    def ids(rows: np.ndarray) -> list[int]:
        asked.append(len(rows))
        return list(rows["id"].tolist())

    document = {"before": 1, "ids": RowsAsList(table, ids), "none": RowsAsList(table[:0], ids)}
    assert written(tmp_path / "a.json", document) == {"before": 1, "ids": table["id"].tolist(), "none": []}
    assert asked == [10, 10, 5]


@pytest.mark.parametrize("count", [0, 1, 25])
def test_what_is_written_does_not_depend_on_the_rows_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    table = segments(count)

    def told(name: str) -> list[object]:
        documents = (segment_properties(table), image_label(table, "0.5"), image_label(table, "0.4"))
        return [written(tmp_path / name, document) for document in documents]

    whole = told("whole.json")
    monkeypatch.setattr(description, "ROWS", 7)
    assert told("parts.json") == whole


def test_voxels_beyond_32_bits_are_fractions() -> None:
    table = segments(3)
    properties = {column["id"]: column for column in segment_properties(table)["inline"]["properties"]}
    assert properties["size"]["data_type"] == "uint32"
    table["size"][1] = 2**32
    properties = {column["id"]: column for column in segment_properties(table)["inline"]["properties"]}
    assert properties["size"]["data_type"] == "float32" and properties["fragments"]["data_type"] == "uint32"
    assert list(properties["size"]["values"]) == table["size"].astype(float).tolist()
