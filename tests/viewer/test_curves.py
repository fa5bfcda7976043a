"""Curves survive crashes and resumes of the training that wrote them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from pipeline.viewer.curves import read_curves, smoothed


def write(path: Path, *records: dict[str, object]) -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def test_no_file_is_no_curves(tmp_path: Path) -> None:
    assert read_curves(tmp_path / "curves.jsonl") is None


def test_repeated_iterations_count_once_with_their_last_value(tmp_path: Path) -> None:
    path = write(
        tmp_path / "curves.jsonl",
        {"iteration": 10, "loss": 3.0},
        {"iteration": 20, "loss": 2.0},
        {"iteration": 10, "loss": 1.0},
    )
    curves = read_curves(path)
    assert curves is not None
    assert curves.iterations.tolist() == [10, 20]
    assert curves.losses["loss"].tolist() == [1.0, 2.0]


def test_a_line_cut_off_by_a_crash_is_ignored(tmp_path: Path) -> None:
    path = write(tmp_path / "curves.jsonl", {"iteration": 10, "loss": 3.0})
    path.write_text(path.read_text() + '{"iteration": 20, "lo')
    curves = read_curves(path)
    assert curves is not None
    assert curves.iterations.tolist() == [10]


def test_terms_and_validations_are_told_apart(tmp_path: Path) -> None:
    path = write(
        tmp_path / "curves.jsonl",
        {"iteration": 10, "loss": 3.0, "node": 1.0, "learning_rate": 0.1, "seconds": 2.0},
        {"iteration": 10, "validation": {"voi_sum": 0.5, "threshold": 0.4}},
        {"iteration": 20, "loss": 2.0},
    )
    curves = read_curves(path)
    assert curves is not None
    assert list(curves.losses) == ["loss", "node"]
    assert np.isnan(curves.losses["node"][1])
    assert curves.validation_iterations.tolist() == [10]
    assert curves.validations["voi_sum"].tolist() == [0.5]


def test_smoothing_keeps_length_level_and_ends() -> None:
    np.testing.assert_allclose(smoothed(np.full(50, 2.0), 7), 2.0)
    np.testing.assert_allclose(smoothed(np.arange(9.0), 3)[1:-1], np.arange(1.0, 8.0))
    np.testing.assert_allclose(smoothed(np.arange(4.0), 1), np.arange(4.0))
