"""Separate images: whatever in a config would join one image with the next is refused by name."""

from __future__ import annotations

from typing import Any

import pytest

from pipeline.config import parse_config
from pipeline.errors import UserError

NEAR = [[0, -1, 0], [0, 0, -1]]
LONG = [[0, -9, 0], [0, 0, -9]]


def document() -> dict[str, Any]:
    """A valid config of separate images."""
    return {
        "run_directory": "runs/x",
        "volumes": {"images": True, "sources": {"a": {"kind": "phantom"}}, "segment": {"source": "a"}},
        "teacher": {"network": {"name": "residual_unet", "dimensions": 2}},
        "student": {"network": {"name": "section_unet", "sections": 1}, "distillation": {}},
        "targets": {"offsets": NEAR + LONG, "erosion_in_plane": True},
        "predict": {"offsets": NEAR + LONG},
        "fragments": {"method": "mutex_watershed"},
    }


def changed(path: str, value: Any) -> dict[str, Any]:
    """The document with one value changed."""
    whole = document()
    node = whole
    *parents, last = path.split(".")
    for parent in parents:
        node = node.setdefault(parent, {})
    node[last] = value
    return whole


def test_the_neighbours_of_an_image_lie_in_it() -> None:
    assert parse_config(document()).neighbours == ((0, -1, 0), (0, 0, -1))


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("predict.offsets", [[-1, 0, 0], *NEAR], "must start with [0,-1,0], [0,0,-1] with volumes.images"),
        ("predict.offsets", [*NEAR, [-2, 0, -3]], "predict.offsets must have z = 0, not [-2, 0, -3]"),
        ("predict.offsets", NEAR, "mutex_watershed needs long-range offsets"),
        ("targets.offsets", [*NEAR, [-1, 0, 0]], "targets.offsets must have z = 0, not [-1, 0, 0]"),
        ("student.distillation.offsets", [[1, 0, 0]], "student.distillation.offsets must have z = 0"),
        ("teacher.network", {"name": "residual_unet", "dimensions": 3}, "teacher.network must be a residual_unet with"),
        ("student.network", {"name": "section_unet", "sections": 3}, "student.network must be a residual_unet with"),
        (
            "student.network",
            {"name": "section_unet", "sections": 1, "stem": [2, 1, 1]},
            "student.network must be a residual_unet with",
        ),
        ("targets.erosion_in_plane", False, "targets.erosion_in_plane must be true"),
        ("agglomerate.method", "waterz", "agglomerate.method must be global"),
        ("augment.transpose_all", True, "augment.transpose_all must be false"),
        ("augment.elastic", {"jitter": [1.0, 2.0, 2.0]}, "augment.elastic.jitter must be 0 along z"),
        ("augment.shift_sections", 0.1, "augment.shift_sections must be 0"),
        ("augment.missing_sections", 0.1, "augment.missing_sections must be 0"),
    ],
)
def test_what_joins_images_is_refused(path: str, value: Any, message: str) -> None:
    with pytest.raises(UserError) as error:
        parse_config(changed(path, value))
    assert message in str(error.value)


def test_a_volume_still_needs_its_three_neighbours() -> None:
    with pytest.raises(UserError, match=r"must start with \[-1,0,0\], \[0,-1,0\], \[0,0,-1\]$"):
        parse_config(changed("volumes.images", False))
