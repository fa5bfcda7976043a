"""A stack of separate images is scored image by image: what the functions on arrays give, averaged."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.config import parse_config
from pipeline.errors import UserError
from pipeline.evaluation import (
    adapted_rand_error,
    aggregated_jaccard_index,
    best_threshold,
    dice,
    evaluate,
    f1_score,
    panoptic_quality,
    variation_of_information,
)
from pipeline.rag import EdgeTable, NodeTable, open_rag
from pipeline.run import Run, read_json
from pipeline.segmentation import connected_components, fragment_statistics, relabel
from pipeline.volumes import create_volume

SHAPE = (5, 24, 30)
OFFSETS = [[0, -1, 0], [0, 0, -1]]


def make_run(tmp_path: Path, **changes: Any) -> Run:
    document: dict[str, Any] = {
        "run_directory": str(tmp_path / "run"),
        "volumes": {"images": True, "sources": {"a": {"kind": "phantom"}}, "segment": {"source": "a"}},
        "student": {"network": {"name": "residual_unet", "dimensions": 2}, "distillation": None},
        "targets": {"offsets": OFFSETS, "erosion": 0},
        "predict": {"offsets": OFFSETS},
        "evaluate": {"sweep": [0.0, 0.3, 0.6]},
    }
    for name, values in changes.items():
        document[name] = {**document.get(name, {}), **values}
    return Run(parse_config(document))


def some_labels() -> np.ndarray:
    """Objects in (5, 24, 30) whose ids repeat from image to image; the last image is empty."""
    labels = np.zeros(SHAPE, np.uint64)
    labels[:4, 2:10, 3:12] = 1
    labels[:4, 2:10, 12:20] = 2
    labels[1:4, 14:20, 5:9] = 3
    labels[2, 14:20, 14:26] = 1  # an object in two parts
    return labels


def some_fragments(labels: np.ndarray) -> np.ndarray:
    """Each object in two halves, with ids of its own in each image, a little too far to the right."""
    z, _, x = np.indices(SHAPE)
    shifted = np.roll(labels, 1, axis=2).astype(np.int64)
    return np.where(shifted > 0, 1 + 10 * z + 2 * shifted + (x % 2), 0).astype(np.uint64)


def fill_run(run: Run, **volumes: np.ndarray) -> dict[float, np.ndarray]:
    """Store everything that is scored; halves join up to 0.3, everything in an image up to 0.6. Merged at each."""
    labels = volumes["labels"]
    fragments = some_fragments(labels)
    for dataset, data in {**volumes, "raw": np.zeros(SHAPE, np.uint8), "fragments": fragments}.items():
        volume = create_volume(run.volume, dataset, SHAPE, data.dtype, voxel_size=(1, 1, 1), chunks=(2, 16, 16))
        volume.write(volume.box, data)
    ids = np.unique(fragments)[1:]
    same_image = (ids[:, None] - 1) // 10 == (ids[None] - 1) // 10
    same_object = (ids[:, None] - 1) // 2 == (ids[None] - 1) // 2
    first, second = np.nonzero(np.triu(same_image, 1))
    pairs = np.stack([ids[first], ids[second]], axis=1)
    scores = np.where(same_object[first, second], 0.2, 0.5)
    nodes = fragment_statistics(fragments)
    ones = np.ones(len(pairs), np.int64)
    edges = EdgeTable(pairs[:, 0], pairs[:, 1], ones, ones * 0.5, scores)
    with open_rag(run.config.rag, run.directory) as store:
        store.write_block(0, NodeTable(nodes.id, nodes.centre, nodes.size, nodes.begin, nodes.end), edges)
        store.write_scores(0, edges)
    merged = {}
    for threshold in run.config.evaluate.sweep:
        lut = connected_components(ids, pairs, scores, threshold)
        merged[threshold] = relabel(fragments, lut[:, 0], lut[:, 1])
    return merged


def expected_scores(segmentation: np.ndarray, labels: np.ndarray, known: np.ndarray | None = None) -> dict[str, float]:
    """The functions on arrays, image by image; VOI and Rand error of those images that have objects."""
    known = np.ones(labels.shape, bool) if known is None else known
    rows = []
    for one, truth, counted in zip(segmentation, labels, known, strict=True):
        pair = one[counted], truth[counted]
        quality, voi = panoptic_quality(*pair), variation_of_information(*pair)
        with_objects = (truth * counted).any()
        rows.append(
            {
                "panoptic_quality": quality.quality,
                "segmentation_quality": quality.segmentation,
                "recognition_quality": quality.recognition,
                "f1": f1_score(*pair),
                "aggregated_jaccard": aggregated_jaccard_index(*pair),
                "dice": dice(*pair),
                "voi_split": voi.split if with_objects else np.nan,
                "voi_merge": voi.merge if with_objects else np.nan,
                "voi_sum": sum(voi) if with_objects else np.nan,
                "adapted_rand_error": adapted_rand_error(*pair) if with_objects else np.nan,
                "cremi_score": (sum(voi) * adapted_rand_error(*pair)) ** 0.5 if with_objects else np.nan,
            }
        )
    means = {name: float(np.nanmean([row[name] for row in rows])) for name in rows[0]}
    scored = int(np.count_nonzero(known))
    return {**means, "scored": scored, "scored_share": scored / known.size}


def test_the_sweep_gives_the_mean_over_images_of_the_scores_of_arrays(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    labels = some_labels()
    merged = fill_run(run, labels=labels)
    results = evaluate(run)
    for threshold, segmentation in merged.items():
        expected = expected_scores(segmentation, labels)
        assert results["scores"][f"{threshold:.2f}"] == pytest.approx(expected, abs=2e-6)
    assert len({scores["panoptic_quality"] for scores in results["scores"].values()}) == 3
    assert read_json(run.summary)["scores"] == results["scores"]


def test_the_best_threshold_has_the_highest_panoptic_quality(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    fill_run(run, labels=some_labels())
    results = evaluate(run)
    assert results["best"]["threshold"] == best_threshold(run) == 0.3
    assert results["best"]["panoptic_quality"] == max(s["panoptic_quality"] for s in results["scores"].values())


def test_a_written_segmentation_is_scored_by_the_same_measures(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    labels = some_labels()
    written = np.where(np.indices(SHAPE)[2] < 12, fill_run(run, labels=labels)[0.3], 0).astype(np.uint64)
    volume = create_volume(run.volume, "segmentation/0.42", SHAPE, np.uint64, voxel_size=(1, 1, 1), chunks=(2, 16, 16))
    volume.write(volume.box, written)
    assert evaluate(run)["scores"]["0.42"] == pytest.approx(expected_scores(written, labels), abs=2e-6)


@pytest.mark.parametrize("changes", [{"targets": {"unlabelled_id": 2}}, {"evaluate": {"ignore": [2]}}], ids=str)
def test_what_does_not_count_is_neither_object_nor_background(tmp_path: Path, changes: dict[str, Any]) -> None:
    run = make_run(tmp_path, **changes)
    labels = some_labels()
    mask = (np.indices(SHAPE)[1] < 18).astype(np.uint8)
    merged = fill_run(run, labels=labels, mask=mask)
    expected = expected_scores(merged[0.3], labels, (mask > 0) & (labels != 2))
    assert evaluate(run)["scores"]["0.30"] == pytest.approx(expected, abs=2e-6)


def test_labels_count_as_they_are_unless_the_config_says_otherwise(tmp_path: Path) -> None:
    """The rules for neurites (parts are objects, below 500 voxels they are ignored) would ignore every nucleus."""
    labels = some_labels()
    ignoring = make_run(tmp_path, evaluate={"sweep": [0.3], "minimum_size": 30})
    merged = fill_run(ignoring, labels=labels)
    large = np.where(labels == 3, 0, labels)
    assert evaluate(ignoring)["best"] == pytest.approx(
        {"threshold": 0.3, **expected_scores(merged[0.3], large, labels != 3)}, abs=2e-6
    )
    parts = evaluate(make_run(tmp_path, evaluate={"sweep": [0.3], "relabel": True}))["best"]
    split = labels.copy()
    split[2, 14:20, 14:26] = 7
    assert parts == pytest.approx({"threshold": 0.3, **expected_scores(merged[0.3], split)}, abs=2e-6)


def test_objects_that_are_all_ignored_give_no_score(tmp_path: Path) -> None:
    run = make_run(tmp_path, evaluate={"minimum_size": 10_000})
    fill_run(run, labels=some_labels())
    with pytest.raises(UserError, match=r"evaluate\.minimum_size: nothing is labelled"):
        evaluate(run)
