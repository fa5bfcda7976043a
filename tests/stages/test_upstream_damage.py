"""No changed bit of affinities or fragments reaches the stage that reads them: files of a real run, bit by bit."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
from voronoi_run import make_run, store_affinities

from pipeline.engine.blocks.stage import VolumeTask
from pipeline.errors import UserError
from pipeline.stages.by_script import extract_fragments
from pipeline.stages.fragments import FragmentsTask
from pipeline.stages.predict import PredictTask
from pipeline.volumes import StorageFormat, tensors

METADATA = ("zarr.json", ".zarray", ".zattrs")


@pytest.mark.parametrize("storage_format", [2, 3], ids=["format 2", "format 3"])
def test_a_flipped_bit_decodes_to_the_same_values_or_to_an_error_that_says_what_to_run(
    tmp_path: Path, storage_format: StorageFormat, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Chunks and their index, codecs and places; in format 3, four chunks lie in a shard."""
    monkeypatch.setattr(tensors, "CHUNK_EDGE", 8)
    run = make_run(tmp_path, storage={"format": storage_format})
    store_affinities(run)
    assert extract_fragments(run)
    places = random.Random(storage_format)
    for task in (PredictTask(run), FragmentsTask(run)):
        sound = task.open()
        expected = sound.read(sound.box)
        files = sorted(path for path in sound.array.folder.rglob("*") if path.is_file())
        metadata = [path for path in files if path.name in METADATA]
        data = [path for path in files if path.name not in METADATA]
        refused = [refuses_a_flipped_bit(task, places.choice(data), places, expected) for _ in range(120)]
        assert sum(refused) > 100
        refused = [refuses_a_flipped_bit(task, places.choice(metadata), places, expected) for _ in range(80)]
        assert sum(refused) > 20


def refuses_a_flipped_bit(task: VolumeTask, path: Path, places: random.Random, expected: np.ndarray) -> bool:
    """Whether a stage that reads the array meets an error; otherwise it reads what was written."""
    content = path.read_bytes()
    damaged = bytearray(content)
    damaged[places.randrange(len(content))] ^= 1 << places.randrange(8)
    path.write_bytes(damaged)
    try:
        upstream = task.open_complete()
        np.testing.assert_array_equal(upstream.read(upstream.box), expected)
        return False
    except UserError as error:
        assert "\n" not in str(error)
        assert "audit.py" in str(error) or "delete the dataset and run" in str(error)
        return True
    finally:
        path.write_bytes(content)
