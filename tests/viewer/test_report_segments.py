"""What the report says of the segmentation: bodies, sizes, certainty and errors are those of the run."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from report_page import ReportPage

from pipeline.errors import UserError
from pipeline.evaluation.errors import SegmentationError, write_errors
from pipeline.evaluation.segment_sizes import SegmentSums, read_segment_sizes
from pipeline.rag import NodeTable
from pipeline.run import CERTAINTY, Run, update_summary, write_json
from pipeline.segmentation import fragment_statistics
from pipeline.viewer import write_report
from pipeline.volumes import create_volume, open_volume
from pipeline.volumes.pyramids import downsample

OFFSET, VOXEL_SIZE = (400, 80, 16), (40, 8, 8)
"""Of raw; the segmented region begins at voxel (6, 16, 16)."""
SEGMENTED = (6, 16, 16)


def page_of(run: Run) -> ReportPage:
    write_report(run)
    return ReportPage((run.directory / "report.html").read_text(encoding="utf-8"))


def segmentation(run: Run) -> np.ndarray:
    volume = open_volume(run.volume, "segmentation/0.50")
    return volume.read(volume.box)


def describe_segments(run: Run) -> None:
    """What 05_segment.py notes of its segments."""
    found = fragment_statistics(segmentation(run))
    nodes = NodeTable(found.id, found.centre, found.size, found.begin, found.end)
    sums, rows = SegmentSums(run.directory, len(nodes)), np.arange(len(nodes))
    sums.add(rows, nodes.size)
    write_json(run.segment_sizes("0.50"), {**sums.summary(nodes.id, rows, iter([nodes]))})


def write_certainty(run: Run, values: np.ndarray) -> None:
    size = [12 * VOXEL_SIZE[0], 40 * VOXEL_SIZE[1], 56 * VOXEL_SIZE[2]]
    volume = create_volume(
        run.volume, CERTAINTY, values.shape, "float32", voxel_size=size, offset=OFFSET, chunks=(8, 8, 8),
        attributes={"threshold": 0.5},
    )  # fmt: skip
    volume.write(volume.box, values.astype(np.float32))


def text_of(page: ReportPage) -> str:
    return " ".join(page.text)


def test_a_segmentation_that_tells_nothing_apart_is_called_so(finished_run: Run) -> None:
    describe_segments(finished_run)
    assert "voxels lie in one of" not in text_of(page_of(finished_run))
    path = finished_run.segment_sizes("0.50")
    sizes = read_segment_sizes(finished_run, "0.50")
    assert sizes is not None
    sizes["largest"][0]["voxels"] = sizes["voxels"]
    write_json(path, {**sizes})
    assert "100 % of the segmented voxels lie in one of" in text_of(page_of(finished_run))


def test_the_largest_segments_are_pictured_and_listed_with_their_sizes(finished_run: Run) -> None:
    describe_segments(finished_run)
    page = page_of(finished_run)
    ids, counts = np.unique(segmentation(finished_run), return_counts=True)
    largest = ids[np.argsort(-counts)][0]
    assert f"{len(ids)} segments at threshold 0.50" in text_of(page)
    row = page.text.index(str(largest))
    assert page.text[row + 1] == f"{counts.max():,}"
    assert page.text[row + 3] == f"{counts.max() * 40 * 8 * 8 / 1e9:.3g}"
    alone = [caption for caption in page.pictures if caption.startswith("segment ")]
    assert len(alone) == 6 and any(f"segment {largest}," in caption for caption in alone)
    (together,) = (image for caption, image in page.pictures.items() if caption.startswith("the 12 largest segments"))
    assert together.shape[1] == 640 and together.shape[2] == 4
    seen = together[..., 3] > 0.5
    assert 0.2 < seen.mean() < 0.9
    assert np.ptp(together[seen][:, :3], axis=-1).max() > 0.3, "in colours"


def test_bodies_are_read_from_a_level_that_is_small_enough(finished_run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    describe_segments(finished_run)
    coarse = downsample(segmentation(finished_run), (1, 4, 4), "majority")
    place = [o + b * s for o, b, s in zip(OFFSET, SEGMENTED, VOXEL_SIZE, strict=True)]
    level = create_volume(
        finished_run.volume, "segmentation/0.50/s1", coarse.shape, "uint64", voxel_size=(40, 32, 32), offset=place,
        chunks=(12, 64, 64), downsampling=(1, 4, 4),
    )  # fmt: skip
    level.write(level.box, coarse)
    finest = open_volume(finished_run.volume, "segmentation/0.50").array
    monkeypatch.setattr("pipeline.viewer.bodies.MOST_VOXELS", coarse.size)
    for position in [(0, 0, 0), (1, 1, 1)]:
        finest.file(position).unlink()
    page = page_of(finished_run)
    (together,) = (image for caption, image in page.pictures.items() if caption.startswith("the 12 largest segments"))
    assert (together[..., 3] > 0.5).mean() > 0.2, "where the finest level has nothing, the coarser one is seen"
    monkeypatch.setattr("pipeline.viewer.bodies.MOST_VOXELS", 1000)
    boxes = [caption for caption in page_of(finished_run).pictures if caption.startswith("the 12 largest segments")]
    assert boxes[0].endswith("in a box of 0.4 × 0.32 × 0.32 µm (z, y, x)"), "of the coarsest, the middle"


def test_certainty_is_mapped_and_its_rank_correlation_told(finished_run: Run) -> None:
    values = np.random.default_rng(0).uniform(0.2, 0.9, (2, 2, 2))
    write_certainty(finished_run, values)
    update_summary(finished_run, certainty={"threshold": 0.5, "blocks": 8, "spearman": -0.71})
    page = page_of(finished_run)
    assert "certainty of the blocks" in page.pictures
    assert "of 8 labelled blocks its rank correlation is −0.71" in text_of(page)


def test_the_dearest_errors_are_pictured_around_their_seams(finished_run: Run) -> None:
    ids = segmentation(finished_run)
    z, y, x = 20, 50, 60
    own, other = int(ids[14, 34, 44]), int(np.unique(ids[14])[0])
    split = SegmentationError("split", 0.25, (own, other), (7, 7), (900, 80), 12, (z, y, x))
    merge = SegmentationError("merge", 0.125, (own, own), (3, 4), (500, 70), 9, (z, y, x))
    write_errors(finished_run.directory / "errors.csv", [split, merge], VOXEL_SIZE, OFFSET)
    page = page_of(finished_run)
    text = text_of(page)
    assert (
        f"1 · split, 0.2500 bits segments {own} (blue) and {other} (orange) are one object; 900 and 80 voxels" in text
    )
    assert f"2 · merge, 0.1250 bits segment {own} holds two objects, 3 (blue) and 4 (orange)" in text
    for rank in (1, 2):
        for layer in ("raw", "segmentation", "labels"):
            assert any(caption.startswith(f"error {rank}, {layer}, ") for caption in page.pictures)
    raw, blue = (
        next(image for caption, image in page.pictures.items() if caption.startswith(f"error 1, {name}"))
        for name in ("raw", "segmentation")
    )
    assert raw.shape[1] >= 250 and raw.shape == blue.shape
    row, column = 50.5 * blue.shape[0] / 96, 60.5 * blue.shape[1] / 125  # of what raw has around the seam
    around = blue[int(row) - 3 : int(row) + 4, int(column) - 3 : int(column) + 4]
    assert (around[..., 2] - around[..., 0]).max() > 0.1, "the first piece is blue where the seam is"


def test_a_list_of_errors_that_is_damaged_is_one_line(finished_run: Run) -> None:
    path = finished_run.directory / "errors.csv"
    path.write_text("rank,kind\n1,split\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"errors\.csv: .*evaluate the run again"):
        page_of(finished_run)


def test_sizes_that_are_damaged_are_one_line(finished_run: Run) -> None:
    describe_segments(finished_run)
    path: Path = finished_run.segment_sizes("0.50")
    path.write_text(path.read_text(encoding="utf-8").replace('"begin": [', '"begin": [-1, '), encoding="utf-8")
    with pytest.raises(UserError, match=r"sizes_0\.50\.json: .*begin.*delete it"):
        read_segment_sizes(finished_run, "0.50")
