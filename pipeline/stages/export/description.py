"""What an export says besides its voxels: which volumes there are, and what is known of every segment."""

from __future__ import annotations

import colorsys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from typing_extensions import override

from ...engine.blocks.stage import Stage
from ...engine.tracking.progress import read_record
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


def segment_properties(table: np.ndarray) -> dict[str, Any]:
    """The `info` of neuroglancer's segment properties: size, number of fragments, centre in nanometres.

    Args:
        table: (M,) `SEGMENT`.
    """
    numbers = [
        ("size", "voxels", table["size"]),
        ("fragments", "fragments that it was made of", table["fragments"]),
        *((f"centre_{axis}", "nanometres", table["centre"][:, 2 - place]) for place, axis in enumerate("xyz")),
    ]
    properties = []
    for name, description, values in numbers:
        whole = values.dtype.kind == "i" and (not len(values) or values.max() < 2**32)
        kind = "uint32" if whole else "float32"
        listed = values.tolist() if whole else np.round(values.astype(np.float64), 2).tolist()
        properties.append(
            {"id": name, "type": "number", "description": description, "data_type": kind, "values": listed}
        )
    inline = {"ids": [str(segment) for segment in table["id"].tolist()], "properties": properties}
    return {"@type": "neuroglancer_segment_properties", "inline": inline}


def image_label(table: np.ndarray, version: str) -> dict[str, Any]:
    """OME-NGFF's `image-label`: a colour of every segment, always the same, and what is known of it.

    Args:
        table: (M,) `SEGMENT`.
        version: of OME-NGFF.
    """
    ids = table["id"].tolist()
    hues = (splitmix64(np.array(table["id"])) >> np.uint64(40)).astype(np.float64) / 2**24
    colours = [[round(255 * part) for part in colorsys.hsv_to_rgb(hue, 0.75, 0.95)] for hue in hues.tolist()]
    rows = zip(ids, table["size"].tolist(), table["fragments"].tolist(), table["centre"].tolist(), strict=True)
    label = {
        "colors": [{"label-value": i, "rgba": [*rgb, 255]} for i, rgb in zip(ids, colours, strict=True)],
        "properties": [
            {"label-value": i, "size": size, "fragments": fragments, "centre": [round(c, 2) for c in centre]}
            for i, size, fragments, centre in rows
        ],
        "source": {"image": "../../"},
    }
    if not ids:  # lists must not be empty
        del label["colors"], label["properties"]
    return label if version == "0.5" else {"version": "0.4", **label}


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
                yield WrittenFile(f"{folder}/{PROPERTIES}", "info", as_json(segment_properties(table)))
            for name, document in self._task(content).image.metadata(self._extra(content, table)).items():
                yield WrittenFile(folder, name, as_json(document))
        if self.form != "precomputed":
            yield from self._groups()
        if self.form != "ngff-0.5":
            said = {"contents": [*self.contents, *self._others()], "threshold": self._threshold_there()}
            yield WrittenFile("", ".emdistill.json", as_json(said))

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
