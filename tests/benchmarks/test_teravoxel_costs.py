"""Costs per teravoxel and of a step leave out what they say they leave out."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest
from end_to_end import STAGES, SUMMED, TERAVOXEL, Cost, Passage, growth_of_global, per_teravoxel, table
from training_step import overheads

from pipeline.training.objective.step_clock import DATA, TEACHER, Split


def passage(voxels: int, edges: int, start: float) -> Passage:
    """Every stage takes 2 µs of a core and 1 µs per voxel, and its start; the global one 3 µs per n log n edges."""
    costs = {name: Cost(start + 2e-6 * voxels, start + 1e-6 * voxels) for name in STAGES}
    costs["agglomerate, global"] = Cost(3e-6 * edges * math.log2(edges), 1.0)
    return Passage(voxels, edges, costs)


def test_the_start_of_processes_does_not_count() -> None:
    quick, slow = (per_teravoxel(passage(10**6, 1000, s), passage(10**7, 10000, s)) for s in (0.0, 50.0))
    for name in SUMMED:
        assert slow[name].cpu == pytest.approx(2e-6 * TERAVOXEL) == pytest.approx(quick[name].cpu)
        assert slow[name].wall == pytest.approx(1e-6 * TERAVOXEL)


def test_the_global_stage_grows_with_n_log_n_edges() -> None:
    small, large = passage(10**6, 1000, 5.0), passage(10**7, 10000, 5.0)
    edges = 1e-3 * TERAVOXEL
    assert per_teravoxel(small, large)["agglomerate, global"].cpu == pytest.approx(3e-6 * edges * math.log2(edges))
    assert growth_of_global(small, large) == pytest.approx(1.0)


def test_the_sum_holds_one_agglomeration_and_gpu_hours_only_of_predict() -> None:
    costs = per_teravoxel(passage(10**6, 1000, 0.0), passage(10**7, 10000, 0.0))
    last = table({"student": costs}, gpu=True).splitlines()[-1]
    hours = 2e-6 * TERAVOXEL / 3600
    assert last == f"| **all, with waterz** | **{5 * hours:,.0f}** | **{2.5 * hours:,.0f}** | **{hours / 2:,.1f}** |"


def test_distillation_is_what_is_added_beside_the_teacher() -> None:
    names = ("student alone", "student distilled")
    networks: list[Any] = [SimpleNamespace(name=name, precision="float32") for name in names]
    alone = Split(9, 0.11, {DATA: 0.01})
    distilled = Split(9, 0.34, {DATA: 0.03, TEACHER: 0.2})
    assert overheads(networks, [alone, distilled]) == {"float32": {"distillation": 0.1, "teacher_forward": 2.0}}
