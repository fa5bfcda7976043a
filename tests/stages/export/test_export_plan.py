"""What an export would take, told before it is made."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
from voronoi_run import make_run, store_affinities

from pipeline.api import agglomerate, extract_fragments
from pipeline.engine.chain import run_stages
from pipeline.engine.pilot import log_pilots
from pipeline.engine.plan import log_plan
from pipeline.run import Run
from pipeline.stages.export.segments import segments_of
from pipeline.stages.export.targets import ExportOptions, export_stages
from pipeline.units import disk_size

THRESHOLD = 0.45


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Run:
    run = make_run(tmp_path_factory.mktemp("run"), pyramid={"smallest": 20})
    store_affinities(run)
    assert extract_fragments(run) and agglomerate(run)
    return run


def test_a_plan_and_a_pilot_know_the_stages_of_an_export(
    tmp_path: Path, finished: Run, caplog: pytest.LogCaptureFixture
) -> None:
    options = ExportOptions("precomputed", str(tmp_path / "out"), THRESHOLD, meshes=True, minimum_size=50)
    stages = export_stages(finished, options)
    caplog.set_level(logging.INFO)
    log_plan(finished, stages)
    assert not (tmp_path / "out").exists(), "a plan writes nothing"
    region = 8 * 40 * 35
    assert f"segmentation, level s0: {8 * region / 1000:.1f} kB before compression" in caplog.text
    assert f"raw, level s0: {region / 1000:.1f} kB before compression" in caplog.text
    assert "; 1 file\n" in caplog.text and "of all segments of at least 50 voxels" in caplog.text
    caplog.clear()
    assert run_stages(finished, [segments_of(finished, THRESHOLD)], False)
    log_pilots(finished, stages, 1, False)
    tried = [line.partition(":")[0] for line in caplog.messages if "a block takes" in line]
    assert any("_raw_s0" in name for name in tried) and any(name.startswith("mesh_pieces") for name in tried)
    assert any("mesh_shards" in line and "before its inputs are there" in line for line in caplog.messages)


def test_a_plan_counts_an_export_at_its_own_place_and_only_what_is_left(
    tmp_path: Path, finished: Run, caplog: pytest.LogCaptureFixture
) -> None:
    options = ExportOptions("precomputed", str(tmp_path / "out"), THRESHOLD, ("raw",))
    stages = export_stages(finished, options)
    whole = 8 * 40 * 35 + sum(each.array_bytes for each in stages[1:])
    caplog.set_level(logging.INFO)

    def told() -> list[str]:
        caplog.clear()
        log_plan(finished, stages)
        return [line for line in caplog.messages if line.startswith("disk:")]

    (line,) = told()
    assert line.startswith(f"disk: at most {disk_size(whole)} of arrays to write,")
    assert line.endswith(f"free at {tmp_path / 'out'}")
    assert run_stages(finished, stages, False)
    (line,) = told()
    assert line.startswith("disk: at most 0 bytes of arrays to write,")
