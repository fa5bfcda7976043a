"""Raw behind a web server, arrays of the run in a bucket: killed and resumed, the same bits as on this machine."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from bucket_server import bucket_server
from scipy import ndimage
from stored_arrays import write_zarr
from toy_tasks import wait_until
from voronoi_run import NETWORK, SHAPE, assert_same, everything
from web_server import WebServer, serving

from pipeline.api import segmentations
from pipeline.config import dump_config, load_config
from pipeline.engine.audit.arrays import Damage
from pipeline.engine.audit.requeue import requeue
from pipeline.engine.plan import log_plan
from pipeline.engine.tracking.progress import Progress, progress_of
from pipeline.errors import UserError
from pipeline.evaluation import evaluate
from pipeline.networks import build_network, save_checkpoint
from pipeline.run import Run, read_json
from pipeline.stages.auditing import audit
from pipeline.stages.by_script import chained_stages, run_chain, segment
from pipeline.stages.importing import ensure_imported
from pipeline.viewer import write_report
from pipeline.viewer.layers import existing_layers
from pipeline.volumes import open_volume, storage
from pipeline.volumes.locations import Location
from pipeline.volumes.storage_errors import StorageUnavailable

ROOT = Path(__file__).parents[2]
BLOCKS = 2 * 3 * 3


@dataclass(frozen=True)
class Setting:
    """A web server with a labelled volume, an empty bucket, and a run that was computed without either."""

    web: WebServer
    data: Path
    checkpoint: Path
    local: Run


def write_config(directory: Path, checkpoint: Path, source: str | Path, location: str | None, executor: str) -> Path:
    """A config from raw to scores."""
    document: dict[str, Any] = {
        "run_directory": str(directory / "run"),
        "volumes": {
            "sources": {"a": {"kind": "file", "path": str(source), "raw": "raw", "labels": "labels"}},
            "segment": {"source": "a", "begin": [1, 2, 3]},
            "validate": {"source": "a"},
        },
        "student": {"network": dump_config(NETWORK), "distillation": None},
        "predict": {"block_size": [4, 16, 16], "tile_size": [4, 16, 16], "checkpoint": str(checkpoint)},
        "fragments": {"context": [1, 6, 6], "seed_distance": 3, "boundary_threshold": 0.98},
        "segment": {"thresholds": [0.3, 0.6]},
        "evaluate": {"minimum_size": 0},
        "cluster": {"executor": executor, "workers": 1, "passing_pause": 0.1},
        "storage": {"location": location},
    }
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "config.json").write_text(json.dumps(document))
    return directory / "config.json"


def run_of(config: Path) -> Run:
    return Run(load_config(config, []))


def finish(run: Run) -> Run:
    """From raw to scores, in this process."""
    ensure_imported(run)
    assert run_chain(run) and segment(run)
    evaluate(run)
    return run


def started(config: Path, step: str = "run_all.py", *options: str) -> subprocess.Popen[str]:
    """A command of the user."""
    line = [sys.executable, str(ROOT / "workflows" / step), str(config), *options]
    return subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def done(config: Path, step: str = "run_all.py", *options: str) -> str:
    """What a command prints that must succeed."""
    process = started(config, step, *options)
    said, _ = process.communicate()
    assert process.returncode == 0, said
    return said


@pytest.fixture(scope="module")
def setting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Setting]:
    folder = tmp_path_factory.mktemp("bucket")
    smooth = ndimage.gaussian_filter(np.random.default_rng(2).normal(size=SHAPE), (0.5, 2, 2))
    raw = np.clip(128 + 400 * smooth, 0, 255).astype(np.uint8)
    labels = ndimage.label(raw > 128)[0].astype(np.uint64)
    for name, data in (("raw", raw), ("labels", labels)):
        write_zarr(folder / "data" / "em.zarr" / name, data, {"resolution": [40, 8, 8]})
    torch.manual_seed(5)
    save_checkpoint(folder / "student.pt", build_network(NETWORK), 1, {})
    source = folder / "data" / "em.zarr"
    local = finish(run_of(write_config(folder / "local", folder / "student.pt", source, None, "serial")))
    with serving(folder / "data") as web, bucket_server("lab"):
        yield Setting(web, folder / "data", folder / "student.pt", local)


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory, setting: Setting) -> Path:
    """The config of a finished run whose raw lies behind HTTP and whose arrays lie in the bucket."""
    directory, source = tmp_path_factory.mktemp("shown"), f"{setting.web.url}/em.zarr"
    config = write_config(directory, setting.checkpoint, source, "s3://lab/runs/shown", "serial")
    finish(run_of(config))
    return config


def test_killed_and_resumed_it_equals_the_local_run_bit_by_bit(tmp_path: Path, setting: Setting) -> None:
    web, source = setting.web, f"{setting.web.url}/em.zarr"
    config = write_config(tmp_path, setting.checkpoint, source, "s3://lab/runs/killed", "local")
    run = run_of(config)
    web.dropped, web.failures, web.delay = 5, 5, 0.05
    process = started(config)
    wait_until(lambda: list(run.tracking.glob("predict/*/records")), seconds=500)  # the first block is committed
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    assert web.dropped == 0 and web.failures == 0
    web.dropped, web.failures, web.delay = 5, 5, 0.0
    said = done(config, "run_all.py", "--set", "cluster.executor=serial")  # no worker of each stage to start
    assert web.dropped == 0 and web.failures == 0
    predicted = read_json(run.summary)["stages"]["predict"]
    assert predicted["blocks_done"] >= 1 and predicted["blocks_done"] + predicted["blocks_skipped"] == BLOCKS
    assert_same(everything(run), everything(setting.local))
    assert len(np.unique(everything(run)["fragments"])) > 30
    assert read_json(run.summary)["scores"] == read_json(setting.local.summary)["scores"] and "VOI" in said
    assert not (run.directory / "volume.zarr").exists(), "no array lies here"


def test_what_a_bucket_holds_is_shown_and_reported(shown: Path, setting: Setting) -> None:
    run = run_of(shown)
    assert_same(everything(run), everything(setting.local))
    assert run.segmentation_names() == ["0.30", "0.60"]
    layers = existing_layers(run)
    assert [layer.name for layer in layers][-2:] == ["segmentation 0.60", "labels"]
    assert segmentations(run)[0.3] == "s3://lab/runs/shown/volume.zarr/segmentation/0.30"
    assert write_report(run).read_bytes().count(b"data:image/png") > 5
    assert "done" in done(shown, "status.py")
    np.testing.assert_array_equal(
        open_volume(run.volume, "fragments").array[0, :5], layers[2].volume.read(layers[2].volume.box)[0, :5]
    )


def test_damage_in_a_bucket_is_found_and_made_again(shown: Path, setting: Setting) -> None:
    run = run_of(shown)
    volume = open_volume(run.volume, "fragments")
    store = storage.open_store(volume.array.location)
    store.write(volume.array.key((0, 1, 1)), None).result()
    whole = store.read(volume.array.key((1, 1, 1))).result().value
    store.write(volume.array.key((1, 1, 1)), whole[:-9]).result()
    findings = audit(run)
    found = {one.stage.name: {kind: one.count(kind) for kind in Damage if one.count(kind)} for one in findings}
    assert (found["fragments"][Damage.MISSING], found["fragments"][Damage.UNREADABLE]) == (1, 1)
    assert not found["predict"] and not found["segment_0.60"]
    with pytest.raises(UserError, match=r"fragments/s0: shard c/1/1/1 is truncated or damaged"):
        volume.read(volume.box)
    requeue(findings)
    assert_same(everything(finish(run)), everything(setting.local))
    assert all(one.sound for one in audit(run))


def test_a_bucket_that_does_not_answer_counts_neither_as_damage_nor_as_empty(
    shown: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    run = run_of(shown)
    tasks = chained_stages(run)
    with monkeypatch.context() as away:
        away.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
        away.setitem(storage.RETRIES, "max_retries", 0)
        storage.context.cache_clear()
        uses = (lambda: audit(run), lambda: progress_of(tasks[0]), lambda: run_chain(run, True))
        for use in uses:
            with pytest.raises(
                StorageUnavailable, match=r"s3://lab/runs/shown/volume\.zarr.*run again when the server"
            ):
                use()
    storage.context.cache_clear()
    assert all(progress_of(task) is Progress.DONE for task in tasks)
    with caplog.at_level(logging.INFO):
        log_plan(run, tasks)
    assert "to write to s3://lab/runs/shown" in caplog.text
    finish(run)
    assert all(stage["blocks_done"] == 0 for stage in read_json(run.summary)["stages"].values())


def test_arrays_may_lie_in_another_folder(tmp_path: Path, setting: Setting, monkeypatch: pytest.MonkeyPatch) -> None:
    """A relative one stays where it was meant, wherever the run is continued from."""
    monkeypatch.chdir(tmp_path)
    config = write_config(tmp_path, setting.checkpoint, setting.data / "em.zarr", "elsewhere", "serial")
    finish(run_of(config))
    assert (tmp_path / "elsewhere" / "volume.zarr" / "fragments" / "s0" / "zarr.json").is_file()
    run = run_of(tmp_path / "run" / "config.json")
    assert run.volume == Location.of(tmp_path / "elsewhere" / "volume.zarr")
    assert not (run.directory / "volume.zarr").exists()
    assert_same(everything(run), everything(setting.local))


@pytest.mark.parametrize(
    ("location", "told"),
    [
        ("https://host/runs", r"storage.location is on a web server, which is only read; name a folder or a bucket"),
        ("ftp://host/runs", r"storage.location: ftp:// is no kind of URL that can be read"),
        ("s3://Not A Bucket/runs", r"storage.location: 'Not A Bucket' is no name of a bucket"),
        ("s3://labb/runs", r"there is no bucket 'labb'; check its name"),
    ],
)
def test_a_place_that_cannot_be_written_is_told(tmp_path: Path, setting: Setting, location: str, told: str) -> None:
    config = write_config(tmp_path, setting.checkpoint, setting.data / "em.zarr", location, "serial")
    with pytest.raises(UserError, match=told):
        finish(run_of(config))
