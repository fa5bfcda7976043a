"""Run lengths of runs and of anybody's volumes: right places, every threshold, and which region is which."""

from __future__ import annotations

import csv
from pathlib import Path

import networkx as nx
import numpy as np
import pytest
from cells_run import CHUNKS, SEGMENTED, SHAPE, fill_run, make_run
from stored_arrays import scale, write_ngff

from pipeline.commands.evaluate import tell_unwritten
from pipeline.commands.run_all import score
from pipeline.errors import UserError
from pipeline.evaluation import (
    SkeletonOptions,
    Skeletons,
    check_run,
    evaluate,
    run_lengths,
    scored_graph,
)
from pipeline.rag import open_rag
from pipeline.run import Run, read_json
from pipeline.volumes import create_volume, delete_volume, open_volume

SIZE = np.array([10, 4, 4])
TEST = {"source": "a", "begin": [2, 0, 4], "end": [5, 20, 20]}


def cell_skeletons(folder: Path, labels: np.ndarray) -> Path:
    """A skeleton along z through every cell of the labels and one along x, as SWC; the first node lies before the
    segmented region.
    """
    folder.mkdir()
    for label in np.unique(labels).tolist():
        z, y, x = (int(v) for v in np.argwhere(labels == label).mean(axis=0).round())
        columns = [v for v in np.flatnonzero(labels[z, y] == label).tolist() if v >= SEGMENTED[2].start]
        places = [(v, y, x) for v in range(1 if label == 1 else 2, SHAPE[0])] + [(z, y, v) for v in columns]
        rows = []
        for number, voxel in enumerate(places, 1):
            pz, py, px = (np.array(voxel) + 0.5) * SIZE
            parent = -1 if number in (1, len(places) - len(columns) + 1) else number - 1
            rows.append(f"{number} 0 {px} {py} {pz} 1 {parent}")
        (folder / f"{label}.swc").write_text("\n".join(rows))
    return folder


def joined_by_graph(run: Run, fragments: np.ndarray, threshold: float) -> np.ndarray:
    """The segmentation of a threshold, by networkx."""
    with open_rag(run.config.rag, run.directory) as store:
        edges = store.read_edges()
    graph = nx.Graph()
    graph.add_nodes_from(np.unique(fragments).tolist())
    graph.add_edges_from(edges.pairs[edges.score <= threshold].tolist())
    segment = {fragment: min(part) for part in nx.connected_components(graph) for fragment in part}
    return np.asarray(np.vectorize(segment.__getitem__, otypes=[np.uint64])(fragments))


def at_nodes(skeletons: Skeletons, segmentation: np.ndarray) -> np.ndarray:
    """Node by node; 0 outside the segmented region."""
    found = []
    for position in skeletons.positions:
        voxel = tuple(int(v) for v in position // SIZE - [axis.start for axis in SEGMENTED])
        inside = all(0 <= v < n for v, n in zip(voxel, segmentation.shape, strict=True))
        found.append(int(segmentation[voxel]) if inside else 0)
    return np.array(found, np.uint64)


@pytest.mark.parametrize("most_edges", [scored_graph.EDGES_IN_MEMORY, 0])
def test_run_lengths_at_every_threshold_are_those_of_the_joined_volume(
    most_edges: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scored_graph, "EDGES_IN_MEMORY", most_edges)
    run = make_run(tmp_path)
    data = fill_run(run)
    options = SkeletonOptions(cell_skeletons(tmp_path / "swc", data["labels"]))
    lengths = evaluate(run, options)["run_length"]
    skeletons = options.open()
    assert list(lengths["thresholds"]) == ["0.10", "0.30", "0.50", "0.70"]
    for threshold, found in lengths["thresholds"].items():
        segmentation = joined_by_graph(run, data["fragments"], float(threshold))
        assert found == run_lengths(skeletons, at_nodes(skeletons, segmentation)).totals()
    erl = {threshold: found["erl"] for threshold, found in lengths["thresholds"].items()}
    assert erl["0.10"] < erl["0.30"] > erl["0.50"] == 0, "cut, right, and merged"
    assert (lengths["threshold"], lengths["chosen_by"], lengths["reported_on"]) == (0.3, "labels", "volumes.segment")
    assert (lengths["chosen_on"], lengths["compared_on"]) == (
        read_json(run.summary)["regions"]["chosen_on"],
        "volumes.segment",
    )
    assert (lengths["nodes"], lengths["nodes_outside"]) == (len(skeletons.owner), 1)
    assert lengths["omitted_edges"] == 1 and lengths["normalised_erl"] < 1
    assert (lengths["merge_threshold"], lengths["no_merge_mask"]) == (1, None)
    assert read_json(run.summary)["run_length"] == lengths
    rows = {row["skeleton"]: row for row in csv.DictReader((run.directory / "skeletons.csv").open())}
    assert sorted(rows) == ["1", "2", "3", "4"]
    assert (rows["1"]["omitted_edges"], rows["2"]["omitted_edges"], rows["2"]["merge_threshold"]) == ("1", "0", "1")
    assert rows["2"]["normalised_erl"] == "1.000000"
    assert evaluate(run)["run_length"] is None and read_json(run.summary)["run_length"] is None


def test_a_written_segmentation_is_scored_as_it_was_written(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    data = fill_run(run)
    volume = open_volume(run.volume, "segmentation/0.30", "r+")
    damaged = np.where(np.indices(data["written"].shape)[0] >= 6, 0, data["written"])
    volume.write(volume.box, damaged)
    options = SkeletonOptions(cell_skeletons(tmp_path / "swc", data["labels"]))
    found = evaluate(run, options)["run_length"]["thresholds"]["0.30"]
    skeletons = options.open()
    assert found == run_lengths(skeletons, at_nodes(skeletons, damaged)).totals()


def test_a_run_without_labels_is_scored_on_skeletons_alone(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    data = fill_run(run)
    options = SkeletonOptions(cell_skeletons(tmp_path / "swc", data["labels"]))
    delete_volume(run.volume, "labels")
    assert check_run(run, options).endswith("on 4 skeletons")
    results = evaluate(run, options)
    assert results["best"] is results["scores"] is None
    assert (results["run_length"]["threshold"], results["run_length"]["chosen_by"]) == (0.3, "erl")
    with pytest.raises(UserError, match="no labels"):
        evaluate(run)


def test_segments_that_reach_the_mask_are_merged(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    data = fill_run(run)
    swc = cell_skeletons(tmp_path / "swc", data["labels"])
    mask = np.zeros(SHAPE, np.uint8)
    mask[4, 0, 5] = 7  # in cell 1
    mask[0, 19, 19] = 7  # not segmented
    write_ngff(tmp_path / "mask.zarr", mask, scale(*SIZE.tolist()))
    options = SkeletonOptions(swc, no_merge_mask=tmp_path / "mask.zarr")
    assert evaluate(run, options)["run_length"]["no_merge_mask"] == str(tmp_path / "mask.zarr")
    rows = {row["skeleton"]: row for row in csv.DictReader((run.directory / "skeletons.csv").open())}
    assert {name: (row["merges"], float(row["erl_nm"]) > 0) for name, row in rows.items()} == {
        "1": ("1", False),
        **dict.fromkeys("234", ("0", True)),
    }
    cropped = mask[SEGMENTED]  # the segmented region alone
    np.save(tmp_path / "cropped.npy", cropped)
    assert evaluate(run, SkeletonOptions(swc, no_merge_mask=tmp_path / "cropped.npy"))["run_length"]["merged_edges"] > 0
    np.save(tmp_path / "cropped.npy", cropped[1:])
    with pytest.raises(
        UserError, match=r"cropped.npy: has the shape 9 x 20 x 16.* 10 x 20 x 16 or of raw, 12 x 20 x 20"
    ):
        evaluate(run, SkeletonOptions(swc, no_merge_mask=tmp_path / "cropped.npy"))
    options = SkeletonOptions(swc, merge_threshold=2, no_merge_mask=tmp_path / "mask.zarr")
    evaluate(run, options)
    assert all(row["merges"] == "0" for row in csv.DictReader((run.directory / "skeletons.csv").open()))


@pytest.mark.parametrize(
    ("thresholds", "told"), [([0.7], "[0.70,0.80]"), ([0.7, 0.3], "[0.70,0.30,0.80]"), ("best", "")]
)
def test_a_best_threshold_that_is_not_written_comes_with_the_command_for_it(
    tmp_path: Path, thresholds: list[float] | str, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    run = make_run(tmp_path, segment={"thresholds": thresholds})
    fill_run(run)
    tell_unwritten(run, 0.8)
    printed = capsys.readouterr().out
    assert f"--set 'segment.thresholds={told}'" in printed if told else not printed
    tell_unwritten(run, 0.3)  # which is written, whatever the config names
    assert not capsys.readouterr().out


def test_the_threshold_is_chosen_on_validate_and_reported_on_test(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """In the test region labels are cut like fragments, so that the lowest threshold would be the best there."""
    run = make_run(tmp_path, volumes={"test": TEST})
    data = fill_run(run)
    labels = data["labels"].copy()
    labels[SEGMENTED][:3] = data["fragments"][:3]
    stored = open_volume(run.volume, "labels", "r+")
    stored.write(stored.box, labels)
    monkeypatch.setattr("pipeline.commands.run_all.evaluate", evaluate)  # the stages before it have not run here
    score(run)
    assert (
        "scores on the test region at threshold 0.30, chosen on the validation region: VOI " in capsys.readouterr().out
    )
    options = SkeletonOptions(cell_skeletons(tmp_path / "swc", data["labels"]))
    results = evaluate(run, options)
    assert results["regions"] == {"chosen_on": "volumes.validate", "reported_on": "volumes.test"}
    assert results["scores"]["0.30"]["voi_sum"] == 0, "on validate"
    assert results["best"]["threshold"] == 0.3
    assert results["best"]["voi_merge"] > 0.5 and results["best"]["voi_split"] == 0
    assert results["best"]["scored"] == 3 * 20 * 16 and results["best"]["scored_share"] == 1
    assert read_json(run.summary)["regions"] == results["regions"]
    rows = list(csv.DictReader((run.directory / "errors.csv").open()))
    assert rows and all(2 <= int(row["z"]) < 5 for row in rows)

    lengths = results["run_length"]
    assert (lengths["chosen_on"], lengths["reported_on"]) == ("volumes.validate", "volumes.test")
    skeletons = options.open()
    z = skeletons.positions[:, 0] // 10
    segments = at_nodes(skeletons, joined_by_graph(run, data["fragments"], 0.3))
    for inside, found in ((z >= 5, lengths["thresholds"]["0.30"]), ((z >= 2) & (z < 5), lengths)):
        expected = run_lengths(skeletons.within(inside), segments[inside])
        assert expected.totals().items() <= found.items()
    assert lengths["erl"] == lengths["max_erl"] == 20, "three sections of 10 nm, and nothing of what leaves them"
    delete_volume(run.volume, "labels")
    assert evaluate(run, options)["run_length"]["chosen_by"] == "erl"
    far = Skeletons.of(("a",), np.zeros(2), np.array([[75, 9, 30], [85, 9, 30]]), np.array([[0, 1]]))
    np.savez(tmp_path / "far.npz", positions=far.positions, skeleton=far.owner, edges=far.edges)
    with pytest.raises(UserError, match=r"volumes\.test: no edge of the skeletons lies in it"):
        evaluate(run, SkeletonOptions(tmp_path / "far.npz"))


def test_regions_that_meet_are_an_error_before_anything_is_scored(tmp_path: Path) -> None:
    run = make_run(tmp_path, volumes={"test": {"source": "a", "z_share": [0.0, 0.5]}})  # up to z 6, validate from z 5
    fill_run(run)
    with pytest.raises(
        UserError, match=r"volumes\.test: the voxels from \(5, 0, 0\) to \(6, 20, 20\) belong to volumes"
    ):
        evaluate(run)
    assert not run.summary.exists()
    outside = {"source": "a", "begin": [0, 0, 0], "end": [2, 20, 20]}
    run = make_run(tmp_path, volumes={"test": outside})
    with pytest.raises(UserError, match=r"volumes\.test: lies outside volumes\.segment"):
        check_run(run)


def test_raw_and_fragments_may_lie_anywhere(tmp_path: Path) -> None:
    """The same run, its raw and fragments moved by fractions of a nanometre."""
    run = make_run(tmp_path)
    data = fill_run(run)
    swc = cell_skeletons(tmp_path / "swc", data["labels"])
    before = evaluate(run, SkeletonOptions(swc))["run_length"]
    for name, array, begin in (
        ("raw", np.zeros(SHAPE, np.uint8), (0, 0, 0)),
        ("fragments", data["fragments"], (2, 0, 4)),
    ):
        delete_volume(run.volume, name)
        offset = tuple((np.array(begin) * (10.5, 4.25, 4.25) + (0.25, 7, -3)).tolist())
        kind = array.dtype.type
        volume = create_volume(
            run.volume, name, array.shape, kind, voxel_size=(10.5, 4.25, 4.25), offset=offset, chunks=CHUNKS
        )
        volume.write(volume.box, array)
    delete_volume(run.volume, "labels")
    delete_volume(run.volume, "segmentation/0.30")
    skeletons = SkeletonOptions(swc).open()
    moved = skeletons.positions / SIZE * (10.5, 4.25, 4.25) + (0.25, 7, -3)
    np.savez(tmp_path / "moved.npz", positions=moved, skeleton=skeletons.owner, edges=skeletons.edges)
    after = evaluate(run, SkeletonOptions(tmp_path / "moved.npz"))["run_length"]
    edges = [name for name in before["thresholds"]["0.30"] if name.endswith("_edges")]
    for threshold, found in after["thresholds"].items():
        assert [found[name] for name in edges] == [before["thresholds"][threshold][name] for name in edges]
