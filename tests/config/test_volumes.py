"""Regions of a config: nothing that is held out is trained on, and nothing is reported where it was chosen."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pipeline.config import parse_config
from pipeline.config.__main__ import main
from pipeline.errors import UserError

REGIONS: dict[str, Any] = {
    "sources": {"a": {"kind": "phantom"}, "b": {"kind": "phantom"}},
    "train": [{"source": "a", "z_share": [0.0, 0.6]}],
    "validate": {"source": "a", "z_share": [0.6, 0.8]},
    "test": {"source": "a", "z_share": [0.8, 1.0]},
    "segment": {"source": "a"},
}


def document(**changes: Any) -> dict[str, Any]:
    student = {"network": {"name": "section_unet"}, "distillation": None}
    return {"run_directory": "/tmp/none", "volumes": {**REGIONS, **changes}, "student": student}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train": [{"source": "a"}]}, "volumes: train overlaps validate, which training must never see"),
        ({"train": [{"source": "b"}, {"source": "a", "z_share": [0.9, 1.0]}]}, "volumes: train overlaps test, which"),
        ({"unlabelled": [{"source": "a", "z_share": [0.9, 1.0]}]}, "volumes: unlabelled overlaps test, which training"),
        ({"test": {"source": "a", "z_share": [0.7, 0.9]}}, "volumes: test overlaps validate, which chooses the"),
        ({"test": {"source": "a"}, "train": []}, "volumes: test overlaps validate, which chooses the threshold"),
        ({"validate": None}, "volumes: test needs a validate region, on which the threshold is chosen"),
        (
            {"test": {"source": "b"}},
            "volumes: test lies in 'b', but 'a' is segmented; with a test region, validate and",
        ),
        ({"validate": {"source": "b"}}, "volumes: validate lies in 'b', but 'a' is segmented"),
        ({"test": {"source": "c"}}, r"volumes: test names the source 'c', which is not in sources \(a, b\)"),
    ],
)
def test_a_test_region_is_seen_by_nothing_else(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        parse_config(document(**changes))


def test_regions_side_by_side_are_right_and_a_validation_region_may_lie_elsewhere_without_a_test(
    tmp_path: Path,
) -> None:
    assert parse_config(document()).volumes.test is not None
    assert parse_config(document(test=None, validate={"source": "b"})).volumes.test is None


def test_the_check_of_a_config_says_it_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "config.json").write_text(json.dumps(document(test={"source": "a", "z_share": [0.5, 1.0]})))
    assert main(["check", str(tmp_path / "config.json")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: volumes: train overlaps test, which training must never see; give another region")
