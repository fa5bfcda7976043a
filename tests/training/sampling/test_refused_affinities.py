"""Affinities on disk that cannot teach are refused before the first step, in one line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from run_files import shards_of
from taught_runs import OFFSETS, STILL, batch_of, store, taught_by

from pipeline.config import NEAREST_NEIGHBOURS
from pipeline.errors import UserError
from pipeline.run import Run
from pipeline.stages.by_script import predict
from pipeline.training import train_teacher
from pipeline.training.sampling.affinity_files import open_affinities

MakeRun = Callable[..., Run]
MISTAKES: dict[str, Any] = {
    "no offsets": ({}, {}, r"^teacher.affinities.p.offsets: .* does not say what its 5 channels are"),
    "contradicting offsets": (
        {"offsets": [list(offset) for offset in OFFSETS]},
        {"offsets": [list(offset) for offset in reversed(OFFSETS)]},
        r"^teacher.affinities.p.offsets: .* leave offsets out to believe it",
    ),
    "missing offset": (
        {"offsets": [[-1, 0, 0], [0, -1, 0], [0, 0, -1], [0, -4, 0], [0, -3, 0]]},
        {},
        r"^teacher.affinities.p: no channel tells of \[0, 0, -4\]",
    ),
    "too few channels": (
        {},
        {"offsets": [list(offset) for offset in (*OFFSETS, (0, 0, -9))]},
        r"^teacher.affinities.p.offsets: .* has 5 channels, fewer than are named",
    ),
    "beyond the range": (
        {"offsets": [list(offset) for offset in OFFSETS]},
        {"range": [0.0, 90.0]},
        r"^teacher.affinities.p.range: .* holds 100, which lies beyond 0 to 90",
    ),
    "no such file": ({}, {"paths": ["/nowhere"]}, r"^teacher.affinities.p.paths"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_affinities_that_are_not_what_the_config_says_are_refused(
    make_run: MakeRun, tmp_path: Path, mistake: str
) -> None:
    attributes, entry, message = MISTAKES[mistake]
    values = np.full((len(OFFSETS), *make_run(STILL).open_raw("p").shape), 100, np.uint8)
    place = store(tmp_path / "t.zarr", values, **attributes)
    run = make_run(STILL, taught_by(place, **entry))
    with pytest.raises(UserError, match=message):
        batch_of(run)


def test_a_dataset_in_a_file_that_has_none_is_refused(make_run: MakeRun, tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.zeros((len(OFFSETS), *make_run(STILL).open_raw("p").shape), np.uint8))
    run = make_run(STILL, taught_by(tmp_path / "a.npy", offsets=[list(each) for each in OFFSETS], dataset="other"))
    with pytest.raises(UserError, match=r"^teacher\.affinities\.p\.dataset: .*a\.npy is one array and has no datasets"):
        open_affinities(run, "p")


def test_a_channel_for_two_offsets_is_refused(make_run: MakeRun, tmp_path: Path) -> None:
    offsets = [list(each) for each in NEAREST_NEIGHBOURS]
    with pytest.raises(UserError, match=r"^teacher\.affinities\.p: channels names channel 0 twice"):
        make_run(STILL, taught_by(tmp_path / "a.npy", offsets=offsets, channels=[0, 0, 1]))


def test_offsets_that_only_augmentation_needs_are_named(make_run: MakeRun, tmp_path: Path) -> None:
    values = np.full((4, *make_run(STILL).open_raw("p").shape), 100, np.uint8)
    told = [list(offset) for offset in (*NEAREST_NEIGHBOURS, (0, -4, 0))]
    place = store(tmp_path / "t.zarr", values, offsets=told)
    compared = f"student.distillation.offsets={json.dumps(told)}"
    with pytest.raises(
        UserError, match=r"no channel tells of \[0, 0, -4\], which augmentation turns into \[0, -4, 0\]"
    ):
        batch_of(make_run(STILL, taught_by(place), compared))
    batch_of(make_run(STILL, taught_by(place), compared, "augment.transpose_yx=false"))


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        (
            "student.distillation.node_weight=0.1",
            r"student.distillation.node_weight compares embeddings, .* set it to 0",
        ),
        ('student.distillation.layers=["decoder_0"]', r"layers compares embeddings, .* set it to \[\]"),
        ("student.distillation.graph_flow={}", "graph_flow compares embeddings, .* set it to null"),
        ("augment.elastic={}", "augment.elastic bends .* set it to null"),
        ('predict.network="teacher"', "predict.network is teacher, which only a teacher of the kind network can be"),
        ('volumes.train=[{"source": "q"}]', "teacher.affinities has no entry for the source 'q'"),
    ],
)
def test_what_needs_a_network_or_bends_affinities_is_refused_in_one_line(
    make_run: MakeRun, setting: str, message: str
) -> None:
    more = 'volumes.sources.q={"kind": "phantom"}'
    with pytest.raises(UserError, match=message):
        make_run(STILL, taught_by(Path("t.zarr")), more, setting)


def test_affinities_of_an_unfinished_prediction_are_refused(make_run: MakeRun, tmp_path: Path) -> None:
    stage = make_run('predict.network="teacher"', 'cluster.executor="serial"', "predict.block_size=[8,32,32]",
                     f"predict.offsets={json.dumps([list(offset) for offset in OFFSETS])}", name="teacher")  # fmt: skip
    train_teacher(stage)
    assert predict(stage)
    record = stage.tracking / "predict.json"
    record.write_text(record.read_text().replace('"complete": true', '"complete": false'))
    with pytest.raises(UserError, match=r"is not complete; run 02_predict_blockwise.py there again"):
        batch_of(make_run(STILL, taught_by(stage.volume.file)))
    assert shards_of(stage, "affinities", 0)
