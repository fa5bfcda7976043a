"""Costs per teravoxel and of a step leave out what they say they leave out."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from end_to_end import STAGES, TERAVOXEL, WATERZ, Cost, Passage, per_teravoxel, table, total
from training_step import overheads

from pipeline.training.objective.step_clock import DATA, TEACHER, Split

HOURS = 2e-6 * TERAVOXEL / 3600
"""Of a core per stage."""


def passage(voxels: int, start: float, *more: str) -> Passage:
    """Every stage takes 2 µs of a core and 1 µs per voxel, and its start."""
    costs = {name: Cost(start + 2e-6 * voxels, start + 1e-6 * voxels) for name in (*STAGES, *more)}
    return Passage(voxels, voxels // 1000, costs)


def test_the_start_of_processes_does_not_count() -> None:
    quick, slow = (per_teravoxel(passage(10**6, start), passage(10**7, start)) for start in (0.0, 50.0))
    for name in STAGES:
        assert slow[name].cpu == pytest.approx(2e-6 * TERAVOXEL) == pytest.approx(quick[name].cpu)
        assert slow[name].wall == pytest.approx(1e-6 * TERAVOXEL)


def test_the_sum_holds_one_agglomeration_and_gpu_hours_only_of_predict() -> None:
    costs = per_teravoxel(passage(10**6, 0.0, WATERZ), passage(10**7, 0.0, WATERZ))
    assert total(costs).cpu / 3600 == pytest.approx(5 * HOURS)
    last = table({"student": costs}, gpu=True).splitlines()[-1]
    assert last == f"| **all, with global** | **{5 * HOURS:,.1f}** | **{2.5 * HOURS:,.1f}** | **{HOURS / 2:,.1f}** |"


def test_a_network_whose_later_stages_mean_nothing_has_prediction_alone() -> None:
    costs = per_teravoxel(*(Passage(n, 0, {"predict": Cost(2e-6 * n, 1e-6 * n)}) for n in (10**6, 10**7)))
    rows = table({"teacher": costs}, gpu=False).splitlines()
    assert f"| predict | {HOURS:,.1f} | {HOURS / 2:,.1f} |" in rows
    assert rows[-1] == f"| **all, with global** | **{HOURS:,.1f}** | **{HOURS / 2:,.1f}** |"
    assert len(rows) == 4


def test_distillation_is_what_is_added_beside_the_teacher() -> None:
    names = ("student alone", "student distilled")
    networks: list[Any] = [SimpleNamespace(name=name, precision="float32") for name in names]
    alone = Split(9, 0.11, {DATA: 0.01})
    distilled = Split(9, 0.34, {DATA: 0.03, TEACHER: 0.2})
    assert overheads(networks, [alone, distilled]) == {"float32": {"distillation": 0.1, "teacher_forward": 2.0}}
