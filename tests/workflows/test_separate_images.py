"""A stack of separate images from file to scores: nothing crosses from one image to the next."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch

from pipeline.config import parse_config
from pipeline.evaluation import evaluate, panoptic_quality
from pipeline.networks.checkpoint import load_checkpoint
from pipeline.rag import open_rag
from pipeline.run import Run, read_json, read_json_lines
from pipeline.stages.by_script import run_chain, segment
from pipeline.stages.importing import ensure_imported
from pipeline.training import train_student
from pipeline.training.sampling.samples import SampleMaker
from pipeline.training.steps.training_setup import Training
from pipeline.viewer import write_report
from pipeline.volumes import open_volume

EXTENT = 64
IMAGES = 12
OFFSETS = [[0, -1, 0], [0, 0, -1], [0, -4, 0], [0, 0, -4], [0, -12, 0], [0, 0, -12]]
SCHEDULE = {
    "iterations": 50,
    "batch_size": 4,
    "patch_shape": [1, 64, 64],
    "learning_rate": 0.01,
    "warm_up": 5,
    "autocast": "off",
    "device": "cpu",
    "loader_workers": 0,
    "minimum_labelled": 0.01,
    "checkpoint_every": 1000,
    "validate_every": 25,
    "validate_shape": [2, 64, 64],
}


def write_stack(path: Path) -> None:
    """Bright discs on a dim background; the same ids 1..n in every image, of which every third belongs to split 1."""
    rng = np.random.default_rng(0)
    y, x = np.indices((EXTENT, EXTENT))
    image, labels = np.zeros((2, IMAGES, EXTENT, EXTENT), np.uint8)
    for section in range(IMAGES):
        for label, corner in enumerate(np.ndindex(3, 3), start=1):
            cy, cx = np.array(corner) * 20 + rng.integers(9, 15, 2)
            labels[section][(y - cy) ** 2 + (x - cx) ** 2 <= rng.integers(16, 50)] = label
        image[section] = rng.normal(20, 3, (EXTENT, EXTENT)) + 130 * (labels[section] > 0)
    with h5py.File(path, "w") as file:
        file.attrs["axes"] = "nyx"
        file["image"], file["labels"] = image, labels
        file["split"] = (np.arange(IMAGES) % 3 == 2).astype(np.uint8)


def make_run(directory: Path, **changes: Any) -> Run:
    path = directory.parent / "stack.h5"
    if not path.exists():
        write_stack(path)
    source = {"kind": "file", "path": str(path), "raw": "image", "labels": "labels", "voxel_size": [1, 1, 1]}
    network = {"name": "residual_unet", "dimensions": 2, "background": True}
    document: dict[str, Any] = {
        "run_directory": str(directory),
        "volumes": {
            "images": True,
            "sources": {
                "train": {**source, "sections": {"dataset": "split", "equals": 0}},
                "held_out": {**source, "sections": {"dataset": "split", "equals": 1}},
            },
            "train": [{"source": "train"}],
            "validate": {"source": "held_out"},
            "segment": {"source": "held_out"},
            "import_block": [4, 32, 32],
        },
        "teacher": {"network": {**network, "widths": [8, 12]}, "training": SCHEDULE},
        "student": {"network": {**network, "widths": [8, 10]}, "training": SCHEDULE},
        "augment": {"elastic": None, "noise": 0.01, "intensity_shift": [-0.02, 0.02]},
        "targets": {"offsets": OFFSETS, "erosion": 1, "erosion_in_plane": True, "background_weight": 1.0},
        "predict": {"offsets": OFFSETS, "block_size": [3, 40, 64]},
        "fragments": {"method": "mutex_watershed", "background_threshold": 0.5, "minimum_size": 8},
        "evaluate": {"sweep": [0.0, 0.2, 0.5, 0.9]},
        "cluster": {"executor": "serial"},
    }
    for name, values in changes.items():
        document[name] = {**document[name], **values}
    return Run(parse_config(document))


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run after all stages."""
    torch.set_num_threads(1)
    run = make_run(tmp_path_factory.mktemp("images") / "run")
    ensure_imported(run)
    train_student(run)
    assert run_chain(run)
    assert segment(run)
    evaluate(run)
    write_report(run)
    return run


def stored(run: Run, dataset: str) -> np.ndarray:
    volume = open_volume(run.volume, dataset)
    return volume.read(volume.box)


def sections_of_ids(array: np.ndarray) -> dict[int, set[int]]:
    """The sections in which each id occurs."""
    found: dict[int, set[int]] = {}
    for z, section in enumerate(array):
        for value in np.unique(section[section > 0]).tolist():
            found.setdefault(value, set()).add(z)
    return found


def test_the_held_out_images_are_segmented(finished: Run) -> None:
    raw, split = stored(finished, "raw"), np.arange(IMAGES) % 3 == 2
    assert raw.shape == (int(split.sum()), EXTENT, EXTENT)
    best = read_json(finished.summary)["best"]
    assert best["panoptic_quality"] > 0.4
    segmentation = stored(finished, f"segmentation/{best['threshold']:.2f}")
    pairs = zip(segmentation, stored(finished, "labels"), strict=True)
    quality = np.mean([panoptic_quality(one, truth).quality for one, truth in pairs])
    assert best["panoptic_quality"] == pytest.approx(quality, abs=2e-6)


def test_no_fragment_edge_or_segment_lies_in_two_images(finished: Run) -> None:
    sections = sections_of_ids(stored(finished, "fragments"))
    assert all(len(found) == 1 for found in sections.values())
    with open_rag(finished.config.rag, finished.directory) as store:
        edges = store.read_edges()
    assert len(edges)
    assert all(sections[u] == sections[v] for u, v in edges.pairs.tolist())
    best = read_json(finished.summary)["best"]
    segments = sections_of_ids(stored(finished, f"segmentation/{best['threshold']:.2f}"))
    assert segments
    assert all(len(found) == 1 for found in segments.values())


def test_training_keeps_the_checkpoint_with_the_highest_panoptic_quality(finished: Run) -> None:
    for role in ("teacher", "student"):
        directory = finished.network_directory(role)
        validations = [line for line in read_json_lines(directory / "curves.jsonl") if "validation" in line]
        assert set(validations[0]["validation"]) == {
            "loss",
            "panoptic_quality",
            "f1",
            "aggregated_jaccard",
            "dice",
            "threshold",
        }
        best = max(validations, key=lambda line: (line["validation"]["panoptic_quality"], -line["iteration"]))
        assert load_checkpoint(directory / "best.pt")["iteration"] == best["iteration"]


def test_the_report_tells_the_scores_of_objects_and_shows_images(finished: Run) -> None:
    page = (finished.directory / "report.html").read_text()
    best = read_json(finished.summary)["best"]
    for text in (f"{best['panoptic_quality']:.3f}", "AJI", "xy plane at z = 1"):
        assert text in page
    assert "xz plane" not in page


def test_sections_of_a_deep_patch_are_images_of_their_own(finished: Run) -> None:
    """Every target of a patch of three images is that of the images one by one."""
    deep = make_run(
        finished.directory,
        teacher={"training": {**SCHEDULE, "patch_shape": [3, 64, 64]}},
        augment={"elastic": {"probability": 1.0}, "intensity_per_section": True},
    )
    training = Training(deep, "teacher")
    with SampleMaker(training.sampling(training.build_network())) as maker:
        batch = maker.batch(0)
    labels, affinities, mask = batch["labels"], batch["affinities"], batch["mask"]
    assert labels.shape == (4, 3, 64, 64)
    for channel, (_, y, x) in enumerate(OFFSETS):
        here, there = labels[..., -y:, -x:], labels[..., : EXTENT + y, : EXTENT + x]
        known = mask[:, channel, :, -y:, -x:] > 0
        expected = (here == there) & (here > 0)
        assert np.array_equal(affinities[:, channel, :, -y:, -x:][known] > 0, expected[known])
        assert not mask[:, channel, :, : -y or None, : -x or None][..., : max(-y, 0), :].any() or y == 0
