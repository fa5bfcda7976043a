"""A ready-made student completes a config, and says where it does not fit."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pipeline.config import dump_config, load_config
from pipeline.config.pretrained import pretrained_names, pretrained_weights, read_card
from pipeline.errors import UserError
from pipeline.networks import load_network
from pipeline.networks.__main__ import main
from pipeline.networks.checkpoint import load_checkpoint
from pipeline.networks.fitting import other_nanometres
from pipeline.run import Run
from pipeline.stages.importing import ensure_imported

ROOT = Path(__file__).parents[2]
LARGEST = 300_000
"""Bytes of a student in the package."""


def least(directory: Path, **sections: Any) -> dict[str, Any]:
    """The least that a config with a ready-made student must say."""
    return {
        "run_directory": str(directory),
        "volumes": {
            "sources": {"a": {"kind": "phantom", "shape": [16, 64, 64], "voxel_size": [10, 10, 10]}},
            "segment": {"source": "a"},
        },
        "predict": {"checkpoint": "pretrained:fibsem-10nm"},
        **sections,
    }


@pytest.mark.parametrize("name", pretrained_names())
def test_a_student_is_small_and_is_the_network_of_its_card(name: str, tmp_path: Path) -> None:
    path, card = pretrained_weights(name), read_card(name)
    assert path.stat().st_size < LARGEST
    config = load_config(least(tmp_path, predict={"checkpoint": f"pretrained:{name}"}))
    network, _ = load_network(path, config.student.network)
    assert network.parameter_count() > 1000
    assert "optimizer" not in load_checkpoint(path)["training"]
    assert config.segment.thresholds == (card.threshold,)
    assert card.scores.keys() & {"voi_sum", "panoptic_quality"} and card.licence and card.not_tried


def test_the_student_of_nuclei_segments_images_whatever_the_size_of_their_pixels(tmp_path: Path) -> None:
    run = Run(load_config(least(tmp_path, predict={"checkpoint": "pretrained:nuclei2d"})))
    ensure_imported(run)
    assert run.config.volumes.images
    assert other_nanometres("nuclei2d", run.source("a")) is None


def test_what_the_config_says_counts_before_the_card(tmp_path: Path) -> None:
    config = load_config(least(tmp_path, fragments={"seed_distance": 9}, segment={"thresholds": [0.25]}))
    card = read_card("fibsem-10nm").config
    assert (config.fragments.seed_distance, config.segment.thresholds) == (9, (0.25,))
    assert config.fragments.boundary_threshold == card["fragments"]["boundary_threshold"]


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        (
            {"student": {"network": {"name": "section_unet", "sections": 3}, "distillation": None}},
            r"^student\.network\.embedding_channels: pretrained:fibsem-10nm has 0 there, not 16; leave student.network",
        ),
        (
            {"student": {"network": {"name": "residual_unet"}, "distillation": None}},
            r'^student\.network\.name: pretrained:fibsem-10nm has "section_unet" there, not "residual_unet"',
        ),
    ],
)
def test_another_network_than_that_of_the_student_is_refused_before_anything_is_written(
    tmp_path: Path, sections: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        load_config(least(tmp_path / "run", **sections))
    assert not (tmp_path / "run").exists()


def test_with_labels_the_threshold_is_chosen_by_them(tmp_path: Path) -> None:
    document = least(tmp_path)
    document["volumes"]["validate"] = {"source": "a"}
    assert load_config(document).segment.thresholds == "best"


def test_a_run_continues_from_its_own_config(tmp_path: Path) -> None:
    """The stored config is whole and names the student still, wherever the directory goes."""
    config = load_config(least(tmp_path))
    Run(config).save_config()
    stored = json.loads((tmp_path / "config.json").read_text())
    assert stored["predict"]["checkpoint"] == "pretrained:fibsem-10nm"
    assert dump_config(load_config(tmp_path / "config.json")) == dump_config(config)


def test_a_run_may_be_continued_with_another_student(tmp_path: Path) -> None:
    """What the card of the first one has put into the stored config gives way; what the config said itself counts."""
    Run(load_config(least(tmp_path, fragments={"seed_distance": 9}))).save_config()
    stored = tmp_path / "config.json"
    other = {"predict.checkpoint": "pretrained:fibsem-10nm-fine", "run_directory": str(tmp_path / "other")}
    again = load_config(stored, other)
    fine = load_config(least(tmp_path / "other", predict={"checkpoint": "pretrained:fibsem-10nm-fine"}))
    assert dump_config(again.student.network) == dump_config(fine.student.network)
    assert again.fragments.seed_distance == 9 and again.segment == fine.segment
    with pytest.raises(
        UserError, match=r"^\w+\.\w+: this stored config says .* the card of pretrained:nuclei2d .*too$"
    ):
        load_config(stored, {**other, "predict.checkpoint": "pretrained:nuclei2d"})
    with pytest.raises(UserError, match="there is no ready-made student 'x'"):
        load_config(stored, {"predict.checkpoint": "pretrained:x"})


def test_unknown_students_are_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^predict.checkpoint: there is no ready-made student 'x'; there are .*fibsem"):
        load_config(least(tmp_path, predict={"checkpoint": "pretrained:x"}))


def test_the_command_lists_names_nanometres_and_licences(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["pretrained"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in lines] == pretrained_names()
    assert any("10 x 10 x 10 nm" in line and "CC" in line for line in lines)
    assert main(["pretrained", "fibsem-10nm"]) == 0
    assert read_card("fibsem-10nm").not_tried in capsys.readouterr().out
    assert main(["pretrained", "nobody"]) == 2
    assert capsys.readouterr().err.startswith("error: predict.checkpoint: there is no ready-made student 'nobody'")


def test_the_command_runs_as_a_module() -> None:
    command = [sys.executable, "-m", "pipeline.networks", "pretrained"]
    shown = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=500).stdout
    assert "fibsem-10nm: 10 x 10 x 10 nm" in shown
