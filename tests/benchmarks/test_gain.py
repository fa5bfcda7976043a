"""The table of the distillation benchmark says only what ran, and compares only what is comparable."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from gain.cells import Cell, Plan, finished_results, planned_cells
from gain.table import as_markdown, by_dataset, closure_of, ratios

from pipeline.run import read_json, write_json


def result(dataset: str, variant: str, seed: int, **best: float) -> dict[str, Any]:
    parameters = 1000 if variant == "teacher" else 9
    facts = {"parameters": parameters, "iterations": 5, "training_seconds": 60.0}
    return {"dataset": dataset, "variant": variant, "seed": seed, "best": best, "scores": best, **facts}


def voi(variant: str, seed: int, total: float) -> dict[str, Any]:
    return result("fib25", variant, seed, voi_sum=total, voi_split=total / 2, voi_merge=total / 2)


def closure(results: list[dict[str, Any]], variant: str = "full") -> float | None:
    ((dataset, rows),) = by_dataset(results).items()
    return closure_of(dataset, rows, variant)


def test_the_gap_is_measured_from_the_student_to_its_teacher() -> None:
    assert closure([voi("teacher", 0, 1.0), voi("alone", 0, 2.0), voi("full", 0, 1.25)]) == pytest.approx(0.75)
    assert closure([voi("teacher", 0, 1.0), voi("alone", 0, 2.0), voi("full", 0, 2.5)]) == pytest.approx(-0.5)


def test_a_score_that_is_better_when_larger_is_not_turned_around() -> None:
    scores = {"teacher": 0.8, "alone": 0.6, "full": 0.7}
    results = [result("nuclei2d", variant, 0, panoptic_quality=score) for variant, score in scores.items()]
    assert closure(results) == pytest.approx(0.5)


def test_variants_are_compared_on_the_seeds_that_both_have() -> None:
    """A lucky seed of the student alone must not count against a variant that has not run with it."""
    results = [voi("teacher", 0, 1.0), voi("alone", 0, 2.0), voi("alone", 1, 1.2), voi("full", 0, 1.5)]
    assert closure(results) == pytest.approx(0.5)
    assert closure([*results[:3], voi("full", 7, 1.5)]) is None


def test_a_cell_that_did_not_run_is_not_in_the_table(tmp_path: Path) -> None:
    results = [voi("teacher", 0, 1.0), voi("alone", 0, 2.0)]
    table = as_markdown(tmp_path, results)
    assert "full" not in table and "not measured" in table
    assert ratios(tmp_path, results)["fib25"] == {
        "gap_closure": {"teacher": None, "alone": None},
        "parameter_ratio": 0.009,
        "time_ratio": None,
    }
    assert closure([voi("alone", 0, 2.0), voi("full", 0, 1.5)]) is None


def test_no_gap_is_no_closure() -> None:
    assert closure([voi("teacher", 0, 2.0), voi("alone", 0, 1.5), voi("full", 0, 1.0)]) is None


def test_terms_are_added_in_turn_and_the_student_alone_has_none(tmp_path: Path) -> None:
    plan = Plan(tmp_path)
    cells = planned_cells(plan, ["phantom"], ["edge", "full"], [0, 1])
    assert [(cell.variant, cell.seed) for cell in cells] == [
        ("teacher", 0),
        ("teacher_embedding", 0),  # these terms compare embeddings, which the config's teacher has none of
        *[(variant, seed) for seed in (0, 1) for variant in ("alone", "edge", "full")],
    ]
    weights = {cell.variant: cell.run.config.student.distillation for cell in cells}
    assert weights["alone"] is None
    assert weights["edge"] is not None and weights["full"] is not None
    assert weights["edge"].node_weight == weights["full"].node_weight > 0
    assert weights["edge"].affinity_weight == weights["edge"].inter_affinity_weight == 0
    training = {cell.variant: cell.run.config.student.training for cell in cells}
    assert training["alone"] == training["edge"] == training["full"]


def test_terms_that_compare_embeddings_have_a_control_that_differs_in_them_alone(tmp_path: Path) -> None:
    control, touching = (Plan(tmp_path).cell("phantom", name, 0) for name in ("recipe_embedding", "touching"))
    assert control.teacher == touching.teacher == Plan(tmp_path).cell("phantom", "teacher_embedding", 0)
    without, with_them = (cell.run.config.student for cell in (control, touching))
    assert without.network == with_them.network and without.training == with_them.training
    assert without.distillation is not None and with_them.distillation is not None
    assert without.distillation.affinity_weight == with_them.distillation.affinity_weight > 0
    assert without.distillation.edge_weight == 0 < with_them.distillation.edge_weight


def test_settings_of_distillation_do_not_make_the_student_alone_a_distilled_one(tmp_path: Path) -> None:
    plan = Plan(tmp_path, ("student.distillation.affinity_weight=7", "student.training.batch_size=2"))
    alone, recipe = (plan.cell("phantom", variant, 0).run.config.student for variant in ("alone", "recipe"))
    assert alone.distillation is None
    assert recipe.distillation is not None and recipe.distillation.affinity_weight == 7
    assert alone.training.batch_size == recipe.training.batch_size == 2


def finish(plan: Plan, variant: str, seed: int = 0) -> Cell:
    """A cell as its run leaves it."""
    cell = plan.cell("phantom", variant, seed)
    cell.run.save_config()
    cell.save(best={"voi_sum": 1.0})
    return cell


def test_a_cell_made_with_other_settings_is_refused(tmp_path: Path) -> None:
    assert not Plan(tmp_path).cell("phantom", "alone", 0).is_finished()
    finish(Plan(tmp_path), "alone")
    assert Plan(tmp_path).cell("phantom", "alone", 0).is_finished()
    longer = Plan(tmp_path, ("student.training.iterations=7",)).cell("phantom", "alone", 0)
    with pytest.raises(SystemExit, match=r"another student\.training\.iterations"):
        longer.is_finished()


def test_other_weights_of_distillation_leave_teacher_and_student_alone_as_they_are(tmp_path: Path) -> None:
    override = ("student.distillation={}", "teacher.training.warm_up=9")
    for variant, stays in (("teacher", override[:1]), ("alone", override[1:])):
        finish(Plan(tmp_path), variant)
        assert Plan(tmp_path, stays).cell("phantom", variant, 0).is_finished()
    with pytest.raises(SystemExit, match=r"another teacher\.training\.warm_up"):
        Plan(tmp_path, override).cell("phantom", "teacher", 0).is_finished()


def test_a_setting_that_a_later_version_adds_does_not_lose_finished_cells(tmp_path: Path) -> None:
    cell = finish(Plan(tmp_path), "alone")
    stored = read_json(cell.result)
    stored["settings"].pop("augment.noise")
    stored["settings"].pop("augment.blur")
    write_json(cell.result, stored)
    assert cell.is_finished()
    noisier = Plan(tmp_path, ("augment.noise=0.5",)).cell("phantom", "alone", 0)
    with pytest.raises(SystemExit, match=r"another augment\.noise"):
        noisier.is_finished()


def test_cells_from_another_folder_are_the_same_cells(tmp_path: Path) -> None:
    """The table grows on several machines: where cell and teacher lie is no setting."""
    for name in ("here", "there"):
        (tmp_path / name).mkdir()
        finish(Plan(tmp_path / name), "full", 1)
    here, there = (finished_results(tmp_path / name) for name in ("here", "there"))
    assert here == there != []


def test_time_is_the_median_of_pairs(tmp_path: Path) -> None:
    write_json(tmp_path / "fib25" / "timing.json", {"seconds": [[10.0, 1.0], [20.0, 1.0], [10.0, 3.0]]})
    facts = ratios(tmp_path, [voi("teacher", 0, 1.0), voi("alone", 0, 2.0)])["fib25"]
    assert facts["time_ratio"] == pytest.approx(0.1)


def test_variants_of_their_own_add_what_they_are_named_after(tmp_path: Path) -> None:
    plan = Plan(tmp_path)
    touching, crossed, learning, described, affinity = (
        plan.cell("fib25", name, 0).run.config
        for name in ("touching", "cross_section", "learning_teacher", "described", "affinity")
    )
    terms, published = touching.student.distillation, affinity.student.distillation
    assert terms is not None and published is not None and crossed.student.distillation is not None
    assert (terms.edges, terms.node_comparison) == ("touching", "directions") and terms.least_depth > 0
    assert (published.edges, published.node_comparison, published.least_depth) == ("all", "raw", 0)
    assert terms.affinity_weight == published.affinity_weight and terms.edge_weight > 0 < published.edge_weight
    assert crossed.student.distillation.cross_section_weight > 0 and crossed.student.network.embedding_channels > 0
    assert not crossed.student.distillation.has_instance_terms
    assert learning.student.distillation is not None and learning.student.distillation.teacher_learning_rate
    assert not learning.student.distillation.has_instance_terms
    assert described.targets.descriptors_of("student") is not None and not described.targets.descriptors_of("teacher")
