"""The semi-supervised benchmark compares what it says: the same labels, the same steps, and raw beside them or not."""

from __future__ import annotations

from pathlib import Path

import pytest
from gain.cells import Plan, planned_cells
from gain.datasets import first_sections
from gain.variants import SEMI_SUPERVISED

from pipeline.config import Config


def configs(tmp_path: Path, dataset: str) -> dict[str, Config]:
    cells = planned_cells(Plan(tmp_path), [dataset], SEMI_SUPERVISED, [0])
    return {cell.variant: cell.run.config for cell in cells}


def test_teacher_and_students_know_the_same_share_of_the_labels(tmp_path: Path) -> None:
    whole, quarter = configs(tmp_path, "fib25"), configs(tmp_path, "fib25_25")
    assert set(quarter) == {*SEMI_SUPERVISED, "teacher_embedding"}
    for variant, config in quarter.items():
        (region,) = config.volumes.train
        assert region.begin == (0, 0, 0) and region.end == (45, 250, 250), variant
        assert config.volumes.validate_ == whole[variant].volumes.validate_


def test_only_variants_called_so_see_unlabelled_raw_and_all_take_the_same_steps(tmp_path: Path) -> None:
    found = configs(tmp_path, "fib25_10")
    for variant, config in found.items():
        assert bool(config.volumes.unlabelled) == ("unlabelled" in variant)
        assert config.student.training == found["alone"].student.training
    assert found["recipe"].student == found["recipe_unlabelled"].student
    assert found["flow"].student == found["flow_unlabelled"].student


def test_flow_takes_the_place_of_graph_relations(tmp_path: Path) -> None:
    found = {name: config.student.distillation for name, config in configs(tmp_path, "fib25_50").items()}
    assert found["alone"] is None
    recipe, flow, full = (found[name] for name in ("recipe", "flow", "flow_full_unlabelled"))
    logits = found["flow_logits_unlabelled"]
    assert recipe is not None and flow is not None and full is not None
    assert recipe.affinity_weight > 0 and recipe.graph_flow is None
    assert flow.affinity_weight == 0 and flow.graph_flow == full.graph_flow is not None
    assert (flow.logits, flow.adversarial) == (None, None) and full.logits and full.adversarial
    assert logits == full.model_copy(update={"adversarial": None})


def test_instances_of_unlabelled_raw_are_all_that_their_variants_differ_in(tmp_path: Path) -> None:
    found = configs(tmp_path, "fib25_10")
    kinds = {
        "off": "full_unlabelled",
        "watershed": "full_unlabelled_watershed",
        "components": "full_unlabelled_components",
    }
    for kind, variant in kinds.items():
        distillation = found[variant].student.distillation
        assert distillation is not None and distillation.has_instance_terms
        assert distillation.unlabelled.instances == kind
        same = distillation.unlabelled.model_copy(update={"instances": "off"})
        plain = found["full_unlabelled"].student.distillation
        assert distillation.model_copy(update={"unlabelled": same}) == plain


def test_a_share_of_a_region_are_its_first_sections() -> None:
    bounds = {"source": "x", "begin": [10, 0, 0], "end": [50, 9, 9]}
    assert first_sections(bounds, 0.25) == {"source": "x", "begin": [10, 0, 0], "end": [20, 9, 9]}
    share = first_sections({"source": "x", "z_share": [0.2, 0.6]}, 0.5)
    assert share["z_share"] == pytest.approx([0.2, 0.4])
