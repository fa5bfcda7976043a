from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from cells_run import CHUNKS, SEGMENTED, SHAPE, VALIDATED, fill_run, make_run

from pipeline.config.pretrained import read_card
from pipeline.errors import UserError
from pipeline.evaluation import best_threshold, check_run, evaluate, prepare_labels, variation_of_information
from pipeline.evaluation.overlaps import LabelRules
from pipeline.run import Run, read_json, update_summary
from pipeline.volumes import create_volume, delete_volume, open_volume


def test_scores_are_those_of_the_validation_region(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    data = fill_run(run)
    results = evaluate(run)
    truth = data["labels"][VALIDATED]
    assert list(results["scores"]) == ["0.10", "0.30", "0.50", "0.70"]
    voi = variation_of_information(data["fragments"][3:], truth)
    assert voi.split > 1
    assert results["scores"]["0.10"]["voi_split"] == pytest.approx(voi.split, abs=1e-6)
    assert results["best"]["threshold"] == 0.3
    assert results["best"]["voi_sum"] == 0
    assert results["scores"]["0.50"]["voi_merge"] == pytest.approx(1.97, abs=0.05)
    scores = {"voi_split", "voi_merge", "voi_sum", "adapted_rand_error", "cremi_score", "scored", "scored_share"}
    assert set(results["best"]) == {"threshold", *scores}
    assert results["regions"] == {"chosen_on": "volumes.validate", "reported_on": "volumes.validate"}
    assert all(scores["scored"] == truth.size for scores in results["scores"].values())


@pytest.mark.parametrize("written", [False, True])
def test_errors_at_the_best_threshold_are_listed_where_they_are(tmp_path: Path, written: bool) -> None:
    run = make_run(tmp_path, evaluate={"sweep": [0.1, 0.5]})
    data = fill_run(run)
    if written:  # worse than what the graph gives at this threshold: it is told as it was written
        volume = open_volume(run.volume, "segmentation/0.30", "r+")
        volume.write(volume.box, np.where(data["written"] == data["written"].max(), data["fragments"], data["written"]))
    else:
        delete_volume(run.volume, "segmentation/0.30")
    best = evaluate(run)["best"]
    assert (best["threshold"] == 0.3) is written
    rows = list(csv.DictReader((run.directory / "errors.csv").open()))
    assert rows
    for kind in ("split", "merge"):
        cost = sum(float(row["voi"]) for row in rows if row["kind"] == kind)
        assert cost == pytest.approx(best[f"voi_{kind}"], abs=1e-4)
    for row in rows:
        z, y, x = (int(row[axis]) for axis in "zyx")
        beside = data["labels"][tuple(slice(max(0, v - 1), v + 2) for v in (z, y, x))]
        assert {int(row["label_a"]), int(row["label_b"])} <= set(np.unique(beside).tolist())
        assert float(row["z_nm"]) == (z + 0.5) * 10


def test_the_summary_keeps_other_sections_and_forgets_older_sweeps(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    fill_run(run)
    update_summary(run, stages={"predict": {"seconds": 1.0}}, scores={"0.99": {"voi_sum": 9.0}})
    results = evaluate(run)
    summary = read_json(run.summary)
    assert summary["scores"] == results["scores"]
    assert summary["best"] == results["best"]
    assert summary["stages"] == {"predict": {"seconds": 1.0}}


def test_a_written_segmentation_is_scored_as_it_was_written(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    data = fill_run(run)
    damaged = np.where(np.indices(data["written"].shape)[0] >= 6, 0, data["written"]).astype(np.uint64)
    volume = create_volume(
        run.volume,
        "segmentation/0.42",
        damaged.shape,
        np.uint64,
        voxel_size=(10, 4, 4),
        offset=(20, 0, 16),
        chunks=CHUNKS,
    )
    volume.write(volume.box, damaged)
    voi = variation_of_information(damaged[3:], data["labels"][VALIDATED])
    scores = evaluate(run)["scores"]["0.42"]
    assert (scores["voi_split"], scores["voi_merge"]) == pytest.approx(tuple(voi), abs=1e-6)


def test_the_best_threshold_serves_the_segmentation_stage(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    fill_run(run)
    assert best_threshold(run) == 0.3
    assert not run.summary.exists()


def test_without_labels_the_threshold_is_a_half(tmp_path: Path) -> None:
    assert best_threshold(make_run(tmp_path)) == 0.5


def test_without_labels_the_card_of_a_ready_made_student_says_the_threshold(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = make_run(tmp_path, predict={"checkpoint": "pretrained:fibsem-10nm"})
    threshold = read_card("fibsem-10nm").threshold
    assert best_threshold(run) == threshold != 0.5
    (told,) = caplog.messages
    assert told.startswith("volumes.validate has no labels") and f"{threshold:.2f} is taken, that of fib" in told


def test_a_maximum_score_holds_in_the_sweep_too(tmp_path: Path) -> None:
    run = make_run(tmp_path, agglomerate={"maximum_score": 0.3})
    fill_run(run)
    scores = evaluate(run)["scores"]
    assert scores["0.70"] == scores["0.30"]


@pytest.mark.parametrize("stated", [2, -1, 2**64 - 1])
def test_masked_and_unlabelled_voxels_do_not_count(stated: int, tmp_path: Path) -> None:
    run = make_run(tmp_path, targets={"unlabelled_id": stated})
    data = fill_run(run)
    stored = open_volume(run.volume, "labels", "r+")
    stored.write(stored.box, np.where(data["labels"] == 2, stated % 2**64, data["labels"]).astype(np.uint64))
    mask = np.ones(SHAPE, np.uint8)
    mask[:, :, :8] = 0
    volume = create_volume(run.volume, "mask", SHAPE, np.uint8, voxel_size=(10, 4, 4), chunks=CHUNKS)
    volume.write(volume.box, mask)
    truth = np.where((mask == 0) | (data["labels"] == 2), 0, data["labels"])[VALIDATED]
    voi = variation_of_information(data["fragments"][3:], truth)
    scores = evaluate(run)["scores"]["0.10"]
    assert scores["voi_split"] == pytest.approx(voi.split, abs=1e-6)
    assert scores["scored"] == np.count_nonzero(truth)
    assert scores["scored_share"] == pytest.approx(np.count_nonzero(truth) / truth.size, abs=1e-6)


def test_a_run_without_an_annotated_voxel_has_no_score(tmp_path: Path) -> None:
    run = make_run(tmp_path, targets={"unlabelled_id": -1})
    fill_run(run)
    stored = open_volume(run.volume, "labels", "r+")
    stored.write(stored.box, np.full(SHAPE, 2**64 - 1, np.uint64))
    with pytest.raises(UserError, match="nothing is labelled"):
        evaluate(run)
    assert not run.summary.exists()


def test_without_a_validation_region_everything_labelled_counts(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    volumes = run.config.volumes.model_copy(update={"validate_": None})
    run = Run(run.config.model_copy(update={"volumes": volumes}))
    data = fill_run(run)
    voi = variation_of_information(data["fragments"], data["labels"][SEGMENTED])
    assert evaluate(run)["scores"]["0.10"]["voi_split"] == pytest.approx(voi.split, abs=1e-6)


def test_small_and_torn_labels_follow_the_config(tmp_path: Path) -> None:
    run = make_run(tmp_path, evaluate={"minimum_size": 500, "relabel": True})
    data = fill_run(run)
    truth = prepare_labels(data["labels"][VALIDATED], LabelRules(True, 500))
    assert 0 < len(np.unique(truth[truth > 0])) < 4
    voi = variation_of_information(data["fragments"][3:], truth)
    assert evaluate(run)["scores"]["0.10"]["voi_split"] == pytest.approx(voi.split, abs=1e-6)


def test_ignored_labels_do_not_count(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    data = fill_run(make_run(tmp_path))
    truth = data["labels"][VALIDATED]
    ignored = int(truth[truth > 0].min())
    kept = np.where(truth == ignored, 0, truth)
    run = make_run(tmp_path, evaluate={"ignore": [ignored, 2**63]})
    voi = variation_of_information(data["fragments"][3:], kept)
    results = evaluate(run)
    scores = results["scores"]["0.10"]
    assert (scores["voi_split"], scores["voi_merge"]) == pytest.approx((voi.split, voi.merge), abs=1e-6)
    assert results["ignored"] == {str(ignored): np.count_nonzero(truth == ignored), str(2**63): 0}
    (warned,) = [record.getMessage() for record in caplog.records if "evaluate.ignore" in record.getMessage()]
    assert f"no voxel has the label {2**63}" in warned
    assert scores["scored"] == np.count_nonzero(kept) < np.count_nonzero(truth)
    with pytest.raises(UserError, match=r"evaluate\.ignore"):
        evaluate(make_run(tmp_path, evaluate={"ignore": np.unique(truth).tolist()}))


def test_a_validation_region_outside_the_segmented_one_is_an_error(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    fill_run(run)
    region = run.config.volumes.validate_.model_copy(update={"begin": (0, 0, 0), "end": (2, 20, 20)})  # type: ignore[union-attr]
    volumes = run.config.volumes.model_copy(update={"validate_": region})
    with pytest.raises(UserError, match=r"volumes\.validate: lies outside"):
        evaluate(Run(run.config.model_copy(update={"volumes": volumes})))


def test_earlier_stages_that_have_not_run_are_named(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    fill_run(run, scored=False)
    with pytest.raises(UserError, match=r"04_agglomerate\.py"):
        evaluate(run)


def test_labels_that_are_all_too_small_are_an_error_and_not_a_perfect_score(tmp_path: Path) -> None:
    run = make_run(tmp_path, evaluate={"minimum_size": 10**6})
    fill_run(run)
    with pytest.raises(UserError, match=r"evaluate\.minimum_size"):
        evaluate(run)


def test_missing_fragments_are_named(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    create_volume(run.volume, "raw", SHAPE, np.uint8, voxel_size=(10, 4, 4), chunks=CHUNKS)
    create_volume(run.volume, "labels", SHAPE, np.uint64, voxel_size=(10, 4, 4), chunks=CHUNKS)
    with pytest.raises(UserError, match=r"fragments: there is no such dataset"):
        check_run(run)


def test_the_region_is_said_before_anything_is_computed(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    fill_run(run)
    assert "4 thresholds and the written segmentations (0.30)" in check_run(run)
    assert "(5, 0, 4)" in check_run(run)
