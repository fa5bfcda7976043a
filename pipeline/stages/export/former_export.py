"""What this run has exported before to the place of a volume, told by the records of its stages.

A segmentation at another threshold may be replaced, if the user says so. Whenever that is killed, one of the two has a
record, so that the place is known to be the run's, and none counts as done of which voxels are gone: first the former
one is said to have nothing done, then the new one is noted, then the former one is forgotten.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from ...run import Run
from ...small_files import DamagedFile, read_json, write_json
from ...volumes.exports import Form
from ...volumes.locations import Location
from ...volumes.storage import delete_below
from .place import place_key

MADE_OF_SEGMENTS = {"mesh": "mesh_shards", "skeletons": "skeleton_shards", "swc": "skeleton_shards"}
"""Folders of a precomputed segmentation that belong to its segments, and the stages that fill them."""


def level_name(form: str, to: str, content: str, threshold: str, level: int) -> str:
    """The name of the stage that exports a level of a volume.

    Args:
        form, to, content, level: of it.
        threshold: of its segments; empty if it has none.
    """
    return "_".join(part for part in ("export", form, place_key(to), content, threshold, f"s{level}") if part)


@dataclass(frozen=True)
class FormerExport:
    """The same volume at the same place, at other thresholds.

    Attributes:
        run: whose exports.
        form, to, content: of the volume.
        threshold: the one that is not meant.
    """

    run: Run
    form: Form
    to: str
    content: str
    threshold: float

    def thresholds(self, level: int = 0) -> list[str]:
        """Of which something has been noted of a level."""
        before, after = level_name(self.form, self.to, self.content, "*", level).split("*")
        names = [path.stem for path in self.run.tracking.glob(f"{before}*{after}.json")]
        found = sorted(name.removeprefix(before).removesuffix(after) for name in names if _record(self.run, name))
        return [threshold for threshold in found if threshold != f"{self.threshold:g}"]

    def key(self, level: int) -> str | None:
        """The key under which the level at another threshold was begun; None if there is none."""
        records = (_record(self.run, name) for name in self._names(level))
        return next((str(record["key"]) for record in records if "key" in record), None)

    def give_up(self, level: int) -> None:
        """Say that nothing is done of a level, and with the finest one delete what was made of the segments there, of
        whatever threshold.
        """
        for name in self._names(level):
            shutil.rmtree(self.run.tracking / name, ignore_errors=True)
            if level > 0:
                _forget(self.run, name)
                continue
            write_json(_path(self.run, name), {**_record(self.run, name), "complete": False})
            self._forget_all(f"describe_{self.form}_{place_key(self.to)}_*{self.content}*")
        if level == 0 and (self.form, self.content) == ("precomputed", "segmentation"):
            for folder, stage in MADE_OF_SEGMENTS.items():
                _forget(self.run, f"{stage}_{place_key(self.to)}")
                delete_below(Location.of(self.to).child(self.content).child(folder))

    def forget(self, level: int) -> None:
        """Forget a level, in whose place another threshold is noted now."""
        for name in self._names(level):
            _forget(self.run, name)

    def other_forms(self) -> list[Form]:
        """The other formats in which something has been noted of the volume."""
        forms: tuple[Form, ...] = ("ngff-0.5", "ngff-0.4", "precomputed")
        patterns = {form: level_name(form, self.to, f"{self.content}*", "", 0) for form in forms if form != self.form}
        return [form for form, pattern in patterns.items() if any(self.run.tracking.glob(f"{pattern}.json"))]

    def _names(self, level: int) -> list[str]:
        thresholds = self.thresholds(level)
        return [level_name(self.form, self.to, self.content, threshold, level) for threshold in thresholds]

    def _forget_all(self, pattern: str) -> None:
        for path in self.run.tracking.glob(f"{pattern}.json"):
            _forget(self.run, path.stem)


def _record(run: Run, name: str) -> dict[str, object]:
    try:
        return read_json(_path(run, name))
    except DamagedFile:
        return {}


def _forget(run: Run, name: str) -> None:
    _path(run, name).unlink(missing_ok=True)
    shutil.rmtree(run.tracking / name, ignore_errors=True)


def _path(run: Run, name: str) -> Path:
    return run.tracking / f"{name}.json"
