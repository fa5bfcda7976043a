"""What an export says besides its voxels: which volumes there are, and what is known of every segment."""

from __future__ import annotations

import colorsys
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from typing_extensions import override

from ...disk_arrays import release_mapped
from ...engine.blocks.stage import Stage
from ...engine.tracking.progress import read_record
from ...errors import writing
from ...hashing import splitmix64
from ...volumes.exports import Form, as_json, exists_at
from ...volumes.locations import Location
from .place import place_key
from .segments import segments_of
from .volume import CONTENTS, IDS, NO_THRESHOLD, ExportTask, place_of
from .written import FilesStep, WrittenFile

PROPERTIES = "segment_properties"
"""Folder of neuroglancer's segment properties in a segmentation."""
FOLDERS = ("mesh", "skeletons")
"""Folders of a precomputed segmentation that its `info` names if they are there."""
GROUP = {"zarr_format": 3, "node_type": "group"}
ROWS = 1 << 14
"""Segments whose JSON values are in memory at a time; each takes about a kilobyte as Python's own numbers."""


class RowsAsList(list[Any]):
    """A JSON list with an element for each row of a table, made while `json.dump` writes it, so that a table of any
    length takes the memory of `ROWS` of them.

    Args:
        table: (M,), mapped from a file.
        elements: gives those of a few rows.
    """

    def __init__(self, table: np.ndarray, elements: Callable[[np.ndarray], Iterable[Any]]) -> None:
        super().__init__()
        self._table, self._elements = table, elements

    @override
    def __len__(self) -> int:
        return len(self._table)

    @override
    def __iter__(self) -> Iterator[Any]:
        for rows in _portions(self._table):
            yield from self._elements(rows)


def _portions(table: np.ndarray) -> Iterator[np.ndarray]:
    """A few rows after another, each let go of when the next ones are asked for."""
    for begin in range(0, len(table), ROWS):
        yield table[begin : begin + ROWS]
        release_mapped(table)


def segment_properties(table: np.ndarray) -> dict[str, Any]:
    """The `info` of neuroglancer's segment properties: size, number of fragments, centre in nanometres.

    Args:
        table: (M,) `SEGMENT`.
    """
    properties = [
        _whole_numbers("size", "voxels", table),
        _whole_numbers("fragments", "fragments that it was made of", table),
        *(_centres(axis, 2 - place, table) for place, axis in enumerate("xyz")),
    ]
    ids = RowsAsList(table, lambda rows: map(str, rows["id"].tolist()))
    return {"@type": "neuroglancer_segment_properties", "inline": {"ids": ids, "properties": properties}}


def _whole_numbers(column: str, description: str, table: np.ndarray) -> dict[str, Any]:
    """A property of whole numbers: in 32 bits, or as fractions if one is too large for that."""
    small = all(rows[column].max() < 2**32 for rows in _portions(table))
    values = RowsAsList(table, lambda rows: rows[column].astype(np.int64 if small else np.float64).tolist())
    return _property(column, description, "uint32" if small else "float32", values)


def _centres(axis: str, place: int, table: np.ndarray) -> dict[str, Any]:
    """The property of centres along an axis, which has a place in z, y, x; two digits after the point."""
    values = RowsAsList(table, lambda rows: np.round(rows["centre"][:, place], 2).tolist())
    return _property(f"centre_{axis}", "nanometres", "float32", values)


def _property(name: str, description: str, data_type: str, values: list[Any]) -> dict[str, Any]:
    return {"id": name, "type": "number", "description": description, "data_type": data_type, "values": values}


def image_label(table: np.ndarray, version: str) -> dict[str, Any]:
    """OME-NGFF's `image-label`: a colour of every segment, always the same, and what is known of it.

    Args:
        table: (M,) `SEGMENT`.
        version: of OME-NGFF.
    """
    label: dict[str, Any] = {} if version == "0.5" else {"version": "0.4"}
    if len(table):  # lists must not be empty
        label |= {"colors": RowsAsList(table, _colours), "properties": RowsAsList(table, _label_properties)}
    return {**label, "source": {"image": "../../"}}


def _colours(rows: np.ndarray) -> Iterator[dict[str, Any]]:
    """Of each segment a hue that follows from its id."""
    hues = (splitmix64(rows["id"].copy()) >> np.uint64(40)).astype(np.float64) / 2**24
    for segment, hue in zip(rows["id"].tolist(), hues.tolist(), strict=True):
        rgb = [round(255 * part) for part in colorsys.hsv_to_rgb(hue, 0.75, 0.95)]
        yield {"label-value": segment, "rgba": [*rgb, 255]}


def _label_properties(rows: np.ndarray) -> Iterator[dict[str, Any]]:
    columns = (rows[name].tolist() for name in ("id", "size", "fragments", "centre"))
    for segment, size, fragments, centre in zip(*columns, strict=True):
        rounded = [round(coordinate, 2) for coordinate in centre]
        yield {"label-value": segment, "size": size, "fragments": fragments, "centre": rounded}


@dataclass(frozen=True)
class DescribeStep(FilesStep):
    """What an export says of its volumes and segments.

    Attributes:
        form: of the export.
        contents: its volumes.
        threshold: of the segmentation; `NO_THRESHOLD` without one.
        extra: of `FOLDERS`, those that this export writes.
    """

    form: Form
    contents: tuple[str, ...]
    threshold: float
    extra: tuple[str, ...] = ()

    stage = "describe"
    version = 1

    @property
    @override
    def name(self) -> str:
        return "_".join(["describe", self.form, place_key(self.to), *self.contents, *self.extra])

    @property
    @override
    def output(self) -> str:
        return Location.of(self.to).name

    @cached_property
    @override
    def upstream(self) -> tuple[Stage, ...]:
        return tuple(self._task(content) for content in self.contents)

    def _task(self, content: str) -> ExportTask:
        threshold = self.threshold if content == "segmentation" else NO_THRESHOLD
        return ExportTask(self.run, self.to, self.form, content, threshold, 0)

    @override
    def settings(self) -> dict[str, Any]:
        return {"contents": list(self.contents), "extra": list(self.extra), "threshold": self.threshold}

    @property
    @override
    def sign(self) -> tuple[str, str]:
        return "", "zarr.json" if self.form == "ngff-0.5" else ".emdistill.json"

    @override
    def is_intact(self) -> bool:
        return not self.damage()  # metadata of an image may have been mended, which then say nothing of its segments

    @override
    def files(self) -> Iterator[WrittenFile]:
        for content in self.contents:
            table = segments_of(self.run, self.threshold).read() if content == "segmentation" else None
            folder = place_of(content, self.form)
            if table is not None and self.form == "precomputed":
                yield from self._long_file(f"{folder}/{PROPERTIES}", "info", segment_properties(table))
            for name, document in self._task(content).image.metadata(self._extra(content, table)).items():
                yield from self._long_file(folder, name, document)
        if self.form != "precomputed":
            yield from self._groups()
        if self.form != "ngff-0.5":
            said = {"contents": [*self.contents, *self._others()], "threshold": self._threshold_there()}
            yield WrittenFile("", ".emdistill.json", as_json(said))

    def _long_file(self, folder: str, name: str, document: Mapping[str, Any]) -> Iterator[WrittenFile]:
        """A JSON file that may say something of every segment: it is on the disk before it is copied to its place."""
        path = self.run.luts / f".{self.name}.json"
        try:
            with writing(path):
                path.parent.mkdir(parents=True, exist_ok=True)
                with path.open("w") as file:
                    json.dump(document, file, indent=1)
            yield WrittenFile(folder, name, path)
        finally:
            path.unlink(missing_ok=True)

    def _extra(self, content: str, table: np.ndarray | None) -> dict[str, Any]:
        """What an image says besides its levels.

        Args:
            content: of the image.
            table: of its segments, if it is a segmentation.
        """
        if content not in IDS:
            return {}
        if self.form != "precomputed":
            label = {"source": {"image": "../../"}} if table is None else image_label(table, self.form[-3:])
            return {"image-label": label}
        if table is None:
            return {}
        image = self._task(content).image.location
        there = [name for name in FOLDERS if exists_at(image.child(name), "info")]
        return {PROPERTIES: PROPERTIES, **{name: name for name in there}}

    def _others(self) -> list[str]:
        """The volumes that earlier exports of this run have left at the place."""
        tasks = [self._task(content) for content in CONTENTS if content not in self.contents]
        known = [task for task in tasks if read_record(task) or task.former.thresholds()]
        return [task.content for task in known if task.image.is_there()]

    def _threshold_there(self) -> float:
        """The threshold of the segmentation at the place; `NO_THRESHOLD` without one."""
        if "segmentation" not in self._others():
            return self.threshold
        return next(map(float, self._task("segmentation").former.thresholds()), self.threshold)

    def _groups(self) -> Iterator[WrittenFile]:
        """The groups around the images: a collection of images, and the labels of raw."""
        there = [*self.contents, *self._others()]
        images = [content for content in there if content not in IDS]
        labels = [content for content in there if content in IDS]
        yield from self._group("", {"bioformats2raw.layout": 3})
        yield from self._group("OME", {"series": images})
        if labels:
            yield from self._group("raw/labels", {"labels": labels})

    def _group(self, folder: str, ome: Mapping[str, Any]) -> Iterator[WrittenFile]:
        if self.form == "ngff-0.5":
            group = {**GROUP, "attributes": {"ome": {"version": "0.5", **ome}}}
            yield WrittenFile(folder, "zarr.json", as_json(group))
            return
        yield WrittenFile(folder, ".zgroup", as_json({"zarr_format": 2}))
        yield WrittenFile(folder, ".zattrs", as_json(ome))
