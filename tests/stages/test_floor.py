"""What perfect affinities score is owed to the fragments alone: next to nothing must be lost there."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from temporary_run import stored_affinities, temporary_run
from voronoi_run import make_run as make_voronoi_run
from voronoi_run import store_affinities, voronoi_cells

from pipeline.config import Config, FragmentsConfig, load_config, parse_config
from pipeline.errors import UserError
from pipeline.evaluation import evaluate
from pipeline.run import Run, read_json
from pipeline.stages import floor
from pipeline.stages.by_script import agglomerate, run_chain, segment
from pipeline.stages.floor import measure_floor, setting_to_take, settings_to_try
from pipeline.volumes import create_volume

CONFIGS = Path(__file__).parents[2] / "configs"
AIM = 0.1
"""Bits of VOI that fragments of perfect affinities may cost."""


def make_run(directory: Path, **sections: Any) -> Run:
    """A labelled phantom of voxels of 10 nm, unless `source` says otherwise."""
    source = {"kind": "phantom", "shape": [40, 72, 72], "voxel_size": [10, 10, 10], "neurite_spacing": 160.0}
    document: dict[str, Any] = {
        "run_directory": str(directory),
        "volumes": {"sources": {"a": source | sections.pop("source", {})}, "segment": {"source": "a"}},
        "student": {"network": {"name": "section_unet"}, "distillation": None},
        "predict": {"block_size": [20, 40, 40]},
        "fragments": {"context": [4, 8, 8]},
        "evaluate": {"sweep": [0.1, 0.3, 0.5, 0.7, 0.9]},
    }
    return Run(parse_config({**document, **sections}))


@pytest.mark.parametrize("voxel_size", [[10, 10, 10], [40, 8, 8]])
@pytest.mark.parametrize("in_plane", [False, True])
def test_the_floor_of_a_phantom_is_low(tmp_path: Path, voxel_size: list[int], in_plane: bool) -> None:
    fragments = {"context": [4, 8, 8], "in_plane": in_plane}
    results = measure_floor(make_run(tmp_path, source={"voxel_size": voxel_size}, fragments=fragments), sweep=False)
    (measured,) = results["settings"]
    assert measured["flat"]["best"]["voi_sum"] <= AIM
    assert measured["cut"]["best"]["voi_sum"] <= results["loss"]["cut"] + AIM


def test_fragments_that_join_neurites_have_a_high_floor(tmp_path: Path) -> None:
    """The ruler measures: what is known to be bad is told."""
    fragments = {"context": [4, 8, 8], "boundary_threshold": 0.6, "face_threshold": 0.0, "seed_distance": 20}
    (measured,) = measure_floor(make_run(tmp_path, fragments=fragments), sweep=False)["settings"]
    assert measured["flat"]["best"]["voi_sum"] > 5 * AIM


def test_results_are_written_with_the_configured_thresholds_and_what_to_take(tmp_path: Path) -> None:
    run = make_run(tmp_path, segment={"thresholds": [0.25, 0.6]})
    results = measure_floor(run)
    assert read_json(run.directory / "floor.json") == results
    summary = read_json(run.summary)["floor"]
    assert summary["flat"] == results["settings"][0]["flat"]["best"]
    assert summary["take"] == results["take"]
    assert len(results["settings"]) > 4
    for measured in results["settings"]:
        for kind in ("flat", "cut"):
            scores = measured[kind]["configured"]
            assert list(scores) == ["0.25", "0.60"]
            assert measured[kind]["best"]["voi_sum"] <= min(score["voi_sum"] for score in scores.values())


def test_only_the_validation_region_counts_and_unlabelled_voxels_do_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Outside of the region, and where nothing is annotated, labels are noise that no fragments could follow."""
    shape, unlabelled = (12, 30, 30), 77
    labels = np.random.default_rng(0).integers(1, 5, shape).astype(np.uint64)
    labels[4:] = 1
    labels[4:, :, 15:] = 2
    labels[4:, 25:] = unlabelled
    volumes = {
        "sources": {"a": {"kind": "phantom", "shape": list(shape)}},
        "segment": {"source": "a"},
        "validate": {"source": "a", "begin": [4, 0, 0], "end": [12, 30, 30]},
    }
    run = make_run(tmp_path, volumes=volumes, targets={"unlabelled_id": unlabelled}, evaluate={"minimum_size": 1})
    monkeypatch.setattr(floor, "ensure_imported", lambda run, sources: None)
    for name, data in (("raw", np.zeros(shape, np.uint8)), ("labels", labels)):
        volume = create_volume(run.volume, name, shape, data.dtype, voxel_size=(10, 10, 10), chunks=shape)
        volume.write(volume.box, data)
    results = measure_floor(run, sweep=False)
    assert results["region"] == {"begin": [4, 0, 0], "end": [12, 30, 30]}
    assert results["settings"][0]["flat"]["best"]["voi_sum"] == 0


def test_a_volume_without_labels_has_no_floor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(floor, "ensure_imported", lambda run, sources: None)
    run = make_run(tmp_path)
    raw = create_volume(run.volume, "raw", (8, 8, 8), "uint8", voxel_size=(10, 10, 10), chunks=(8, 8, 8))
    raw.write(raw.box, np.zeros((8, 8, 8), np.uint8))
    with pytest.raises(UserError, match="no labels"):
        measure_floor(run)


def row(voi: float, **changes: Any) -> dict[str, Any]:
    return {"fragments": changes, "flat": {"best": {"voi_sum": voi}}}


def test_settings_are_taken_only_if_they_are_clearly_better() -> None:
    own = FragmentsConfig()
    assert setting_to_take([row(0.05), row(0.045, seed_distance=3)], ["flat"], own, False) == {}
    assert setting_to_take([row(0.5), row(0.1, seed_distance=3)], ["flat"], own, False) == {"seed_distance": 3}


def test_anisotropic_voxels_are_given_fragments_within_sections() -> None:
    """Networks are unsure between such sections, which perfect affinities do not show."""
    rows = [row(0.0), row(0.03, in_plane=True), row(0.02, in_plane=True, seed_distance=3)]
    assert setting_to_take(rows, ["flat"], FragmentsConfig(), True) == {"in_plane": True, "seed_distance": 3}


def test_a_network_chooses_whatever_perfect_affinities_say() -> None:
    """The demo's first networks were cosines, of which those across sections said nothing: only 3D suited them."""
    own = FragmentsConfig(in_plane=True)
    rows = [row(0.0), row(0.6, in_plane=False, face_threshold=0.0)]
    for fragments, voi in zip(rows, (3.5, 0.4), strict=True):
        fragments["network"] = {"best": {"voi_sum": voi}}
    taken = setting_to_take(rows, ["flat", "network"], own, True)
    assert taken == {"in_plane": False, "face_threshold": 0.0}
    rows[1]["network"]["best"]["voi_sum"] = 3.45
    assert setting_to_take(rows, ["flat", "network"], own, True) == {}  # no more than noise


def test_network_affinities_score_as_the_run_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a region that begins inside the volume: the same voxels, fragments, graph and thresholds as in the stages."""
    monkeypatch.setattr(floor, "ensure_imported", lambda run, sources: None)
    run = make_voronoi_run(tmp_path, evaluate={"minimum_size": 1}, segment={"thresholds": [0.3, 0.6]})
    raw = run.open_raw("a")
    labels = np.zeros(raw.shape, np.uint64)
    inside = labels[1:, 2:, 3:]
    inside[:] = voronoi_cells(inside.shape) // 2 + 1  # each has two cells, so that something is lost
    volume = create_volume(run.volume, "labels", labels.shape, "uint64", voxel_size=raw.voxel_size, chunks=(4, 16, 16))
    volume.write(volume.box, labels)
    assert "network" not in measure_floor(run, sweep=False)["settings"][0]
    store_affinities(run)
    (measured,) = measure_floor(run, sweep=False)["settings"]
    assert run_chain(run) and segment(run)
    assert 0 < measured["network"]["best"]["voi_sum"] == pytest.approx(evaluate(run)["best"]["voi_sum"])
    settings = measure_floor(run)["settings"]
    tried = {(tried["fragments"].get("in_plane"), tried["fragments"].get("face_threshold")) for tried in settings}
    assert {(True, None), (True, 0.0), (None, 0.0)} < tried
    assert read_json(run.summary)["floor"]["network"] == settings[0]["network"]["best"]


def test_affinities_that_were_dropped_after_use_are_not_scored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Labels are enough, whatever became of the affinities, and whatever the config says by now about keeping them."""
    monkeypatch.setattr(floor, "ensure_imported", lambda run, sources: None)
    run = temporary_run(tmp_path)
    raw = run.open_raw("a")
    volume = create_volume(run.volume, "labels", raw.shape, "uint64", voxel_size=raw.voxel_size, chunks=(4, 16, 16))
    volume.write(volume.box, voronoi_cells(tuple(raw.shape)) + 1)
    assert agglomerate(run)
    assert stored_affinities(run) == 0
    for keep in ("until_used", "all"):
        assert "network" not in measure_floor(temporary_run(tmp_path, keep), sweep=False)["settings"][0]


def test_the_sweep_begins_with_the_config_and_repeats_nothing(tmp_path: Path) -> None:
    config: Config = make_run(tmp_path).config
    tried = list(settings_to_try(config, True))
    assert tried[0] == {}
    assert len({str(sorted(changes.items())) for changes in tried}) == len(tried)
    assert {changes.get("in_plane", False) for changes in tried} == {False, True}


@pytest.mark.parametrize("name", ["demo", "fib25", "vnc", "nuclei2d"])
def test_the_floor_of_shipped_configs_is_low(name: str, tmp_path: Path) -> None:
    if name != "demo" and not os.environ.get("EMDISTILL_DATA"):
        pytest.skip("EMDISTILL_DATA does not name a folder with labelled volumes")
    overrides = [f"run_directory={tmp_path}"]
    results = measure_floor(Run(load_config(CONFIGS / f"{name}.json", overrides)), sweep=False)
    (measured,) = results["settings"]
    assert measured["flat"]["best"]["voi_sum"] <= AIM
    assert measured["cut"]["best"]["voi_sum"] <= results["loss"]["cut"] + AIM
