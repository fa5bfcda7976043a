"""Logs of a training on a disk that fills up, and files of logs that are damaged."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from small_disk import small_disk
from toy_tasks import fill_disk

from pipeline.errors import UserError
from pipeline.training.steps.logs import TrainingLog
from pipeline.viewer.curves import read_curves


def test_a_disk_that_is_full_under_tensorboard_is_one_line(tmp_path: Path) -> None:
    picture = np.random.default_rng(0).integers(0, 255, (64, 64, 3)).astype(np.uint8)
    with small_disk(tmp_path / "disk") as disk:
        with pytest.raises(UserError, match="logs: cannot be written"), TrainingLog(disk, 0, 9, "student") as log:
            fill_disk(disk / "ballast")
            for iteration in range(1, 100):
                log.picture(iteration, "a picture", picture)
        (disk / "ballast").unlink()


def test_damaged_lines_of_curves_are_left_out(tmp_path: Path) -> None:
    path = tmp_path / "curves.jsonl"
    path.write_bytes(
        b'{"iteration": 1, "loss": 2.0}\n[1, 2]\n{"loss": 1}\n{"iteration": "x", "loss": 1}\n\xff\xfe\n'
        b'{"iteration": 3, "validation": 7}\n{"iteration": ' + b"9" * 5000 + b', "loss": 1}\n{"iteration": 2, "lo'
    )
    curves = read_curves(path)
    assert curves is not None
    assert curves.iterations.tolist() == [1] and curves.losses["loss"].tolist() == [2.0]
    with TrainingLog(tmp_path, 5, 10, "student"):
        assert path.read_text().count("\n") >= 1
