"""The report shows the numbers of the run, works with whatever exists, and needs nothing but itself."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from imported_sources import with_sparse_raw
from matplotlib.image import imread
from report_page import ReportPage
from run_files import shards_of

from pipeline.errors import UserError
from pipeline.networks import build_network
from pipeline.run import Run, read_json, update_summary
from pipeline.viewer import overview_picture, write_report
from pipeline.volumes import create_volume, delete_volume


def page_of(run: Run) -> ReportPage:
    """The report, written and read back."""
    write_report(run)
    return read_page(run)


def read_page(run: Run) -> ReportPage:
    """The report that has been written."""
    return ReportPage((run.directory / "report.html").read_text(encoding="utf-8"))


def test_the_headline_is_the_best_threshold_of_the_summary(untouched_run: Run) -> None:
    page = read_page(untouched_run)
    best = read_json(untouched_run.summary)["best"]
    tiles = {label: page.text[page.text.index(label) - 1] for label in page.text}
    assert tiles["VOI sum, bits"] == f"{best['voi_sum']:.3f}"
    assert tiles["VOI split"] == f"{best['voi_split']:.3f}"
    assert tiles["VOI merge"] == f"{best['voi_merge']:.3f}"
    assert tiles["adapted Rand error"] == f"{best['adapted_rand_error']:.3f}"
    assert tiles["best threshold"] == "0.50"


def test_every_threshold_is_listed_with_its_scores(untouched_run: Run) -> None:
    text = read_page(untouched_run).text
    for threshold, scores in read_json(untouched_run.summary)["scores"].items():
        row = text.index(f"{scores['voi_sum']:.4f}")
        assert text[row - 3 : row + 2] == [threshold] + [
            f"{scores[name]:.4f}" for name in ("voi_split", "voi_merge", "voi_sum", "adapted_rand_error")
        ]


def test_stages_networks_versions_and_config_are_those_of_the_run(untouched_run: Run) -> None:
    page = read_page(untouched_run)
    row = page.text.index("predict")
    assert page.text[row : row + 7] == ["predict", "12", "3", "0", "8.2 s", "431 k", "612 MiB"]
    teacher, student = (
        build_network(section.network).parameter_count()
        for section in (untouched_run.config.network_teacher, untouched_run.config.student)
        if section is not None
    )
    assert f"{teacher:,}" in page.text
    assert f"{student:,}" in page.text
    assert f"{100 * student / teacher:.2g} %" in page.text
    assert untouched_run.config_hash in page.text
    assert f"zarr {read_json(untouched_run.summary)['versions']['zarr']}" in " ".join(page.text)


def test_the_page_is_self_contained(untouched_run: Run) -> None:
    html = (untouched_run.directory / "report.html").read_text(encoding="utf-8")
    assert all(address.startswith("data:") for address in ReportPage(html).addresses)
    assert not re.search(r"https?://|url\(|@import|<script|<link", html)


def test_names_from_outside_cannot_break_the_page(untouched_run: Run) -> None:
    html = (untouched_run.directory / "report.html").read_text(encoding="utf-8")
    assert untouched_run.directory.name == "demo & <more>"
    assert "<more>" not in html
    assert "demo &amp; &lt;more&gt;" in html


def test_all_layers_are_pictured_in_both_planes(untouched_run: Run) -> None:
    pictures = read_page(untouched_run).pictures
    for name in ("raw", "affinities", "fragments", "segmentation 0.50", "labels"):
        for plane in ("xy plane at z = 24", "xz plane at y = 56"):
            assert any(caption.startswith(name) and caption.endswith(plane) for caption in pictures), (name, plane)
    for caption in ("threshold sweep", "teacher training curves", "student training curves"):
        assert caption in pictures


def test_planes_show_true_proportions(untouched_run: Run) -> None:
    pictures = read_page(untouched_run).pictures
    height, width = pictures["raw, xz plane at y = 56"].shape[:2]
    sections, columns = 12, 112  # of the validation region, where it is segmented
    assert height / width == pytest.approx(sections * 40 / (columns * 8), rel=0.02)


def test_nothing_done_yet_is_no_error(empty_run: Run) -> None:
    page = page_of(empty_run)
    assert page.pictures == {}
    assert "No network was trained in this run directory." in page.text
    assert "Stages" not in page.text


def test_raw_alone_is_shown_alone(raw_run: Run) -> None:
    page = page_of(raw_run)
    assert len(page.pictures) == 2
    assert "VOI sum, bits" not in page.text
    assert "30 × 96 × 128 voxels of 40 × 8 × 8 nm" in " ".join(page.text)


def test_without_labels_there_are_segmentations_but_no_scores(finished_run: Run) -> None:
    delete_volume(finished_run.volume, "labels")
    update_summary(finished_run, scores=None, best=None)
    page = page_of(finished_run)
    assert "Scores against the labels" not in page.text
    assert any(caption.startswith("segmentation 0.50") for caption in page.pictures)


def test_without_a_teacher_only_the_student_is_listed(finished_run: Run) -> None:
    student = finished_run.config.student.model_copy(update={"distillation": None})
    config = finished_run.config.model_copy(update={"teacher": None, "student": student})
    page = page_of(Run(config))
    assert "teacher" not in page.text
    assert "student" in page.text


def test_one_threshold_needs_no_plot(finished_run: Run) -> None:
    score = read_json(finished_run.summary)["scores"]["0.50"]
    update_summary(finished_run, scores=None)
    update_summary(finished_run, scores={"0.50": score})
    assert "threshold sweep" not in page_of(finished_run).pictures


def test_only_the_shown_sections_are_read(finished_run: Run) -> None:
    for path in shards_of(finished_run, "raw", 0):
        path.write_bytes(b"damage in sections that the report does not show")
    assert page_of(finished_run).pictures


def test_a_damaged_chunk_that_is_shown_is_named(finished_run: Run) -> None:
    for path in shards_of(finished_run, "fragments", 1):
        path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(UserError, match=r"fragments/s0: shard c/1/./. is truncated"):
        write_report(finished_run)


def test_the_report_can_be_written_again(finished_run: Run) -> None:
    first, second = write_report(finished_run), write_report(finished_run)
    assert first == second == finished_run.directory / "report.html"
    assert [path.name for path in first.parent.iterdir() if "report" in path.name] == ["report.html"]


def test_the_overview_is_three_panels_of_one_section(finished_run: Run, tmp_path: Path) -> None:
    picture = imread(overview_picture(finished_run, tmp_path / "docs" / "overview.png"))[..., :3]
    height, width = picture.shape[:2]
    assert width > 3 * height
    thirds = np.array_split(picture, 3, axis=1)
    raw, affinities, segmentation = (third[10:-10, 20:-20] for third in thirds)
    assert np.allclose(raw[..., 0], raw[..., 1]), "raw is grey"
    assert affinities.mean() > raw.mean(), "affinities are bright inside neurites"
    assert np.abs(segmentation[..., 0] - segmentation[..., 1]).mean() > 0.05, "segments are coloured"


def test_an_overview_without_segmentation_says_what_is_missing(raw_run: Run, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no affinities to show yet"):
        overview_picture(raw_run, tmp_path / "overview.png")


def test_a_volume_of_any_size_is_shown_through_a_window(empty_run: Run, tmp_path: Path) -> None:
    huge, place = (40_000, 50_000, 60_000), tmp_path / "sparse.zarr"
    create_volume(place, "raw", huge, np.uint8, voxel_size=(8, 8, 8), chunks=(64, 64, 64))
    run = with_sparse_raw(empty_run, place)
    segment = run.config.volumes.segment.model_copy(update={"begin": None, "end": None})
    volumes = run.config.volumes.model_copy(update={"segment": segment})
    page = page_of(Run(run.config.model_copy(update={"volumes": volumes})))
    assert {picture.shape[:2] for picture in page.pictures.values()} == {(512, 512)}
