"""Checkpoints give back what was saved, and every wrong file is one clear line."""

from __future__ import annotations

import logging
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from training_state import assert_equal

from pipeline.checkpoints import latest_checkpoint
from pipeline.config import SectionUnetConfig
from pipeline.distillation import MemoryBank
from pipeline.errors import UserError
from pipeline.networks import build_network, load_network, save_checkpoint
from pipeline.networks.checkpoint import load_checkpoint
from pipeline.training.objective.paraphraser_files import (
    build_paraphrasers,
    read_paraphrasers,
    write_paraphrasers,
)

SMALL = SectionUnetConfig(widths=(3, 4), sections=3)


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    path = tmp_path / "checkpoint_0000500.pt"
    save_checkpoint(path, build_network(SMALL), 500, {"optimizer": {"state": {0: {"exp_avg": torch.zeros(3)}}}})
    return path


def test_round_trip_is_bit_exact(tmp_path: Path) -> None:
    network = build_network(SMALL)
    path = tmp_path / "new" / "checkpoint_0000007.pt"
    state = torch.get_rng_state()
    save_checkpoint(path, network, 7, {"rng": state, "best": {"loss": 0.25, "path": "x"}})
    loaded, metadata = load_network(path, SMALL)
    assert loaded.config == SMALL
    assert all(torch.equal(a, b) for a, b in zip(network.parameters(), loaded.parameters(), strict=True))
    assert metadata["iteration"] == 7
    assert torch.equal(metadata["training"]["rng"], state)
    assert metadata["training"]["best"] == {"loss": 0.25, "path": "x"}
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_latest_counts_iterations_not_names(tmp_path: Path) -> None:
    for name in ("checkpoint_0000500.pt", "checkpoint_10000000.pt", "checkpoint_best.pt", ".checkpoint_99999999.pt.1"):
        (tmp_path / name).touch()
    assert latest_checkpoint(tmp_path).name == "checkpoint_10000000.pt"


@pytest.mark.parametrize("exists", [True, False])
def test_folder_without_checkpoint(tmp_path: Path, exists: bool) -> None:
    directory = tmp_path if exists else tmp_path / "teacher"
    with pytest.raises(UserError, match="there is no checkpoint"):
        latest_checkpoint(directory)


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no such checkpoint"):
        load_network(tmp_path / "checkpoint_0000001.pt")


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.99])
def test_truncated_file(saved: Path, share: float) -> None:
    content = saved.read_bytes()
    saved.write_bytes(content[: int(share * len(content))])
    with pytest.raises(UserError, match="cannot be read as a checkpoint"):
        load_network(saved)


def test_other_content(tmp_path: Path) -> None:
    text, tensor = tmp_path / "a.pt", tmp_path / "b.pt"
    text.write_text("not a checkpoint at all")
    torch.save({"weights": torch.zeros(3)}, tensor)
    with pytest.raises(UserError, match="cannot be read as a checkpoint"):
        load_network(text)
    with pytest.raises(UserError, match="is no checkpoint of this program"):
        load_network(tensor)


def test_code_in_a_checkpoint_does_not_run(tmp_path: Path) -> None:
    class Intruder:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return Path.touch, (tmp_path / "intruded",)  # type: ignore[return-value]

    path = tmp_path / "checkpoint_0000001.pt"
    torch.save({"format": 1, "model": Intruder()}, path)
    with pytest.raises(UserError):
        load_network(path)
    assert not (tmp_path / "intruded").exists()


def test_checkpoint_of_another_network(saved: Path) -> None:
    with pytest.raises(UserError, match=r"widths is \[3, 4\] in the checkpoint and \[3, 5\] in the config"):
        load_network(saved, SectionUnetConfig(widths=(3, 5), sections=3))


def test_weights_that_do_not_fit(saved: Path) -> None:
    as_earlier_versions_wrote_it(saved)
    document = torch.load(saved, weights_only=True)
    document["model"].popitem()
    torch.save(document, saved)
    with pytest.raises(UserError, match="its weights do not fit"):
        load_network(saved)


def test_unwritable_place(tmp_path: Path) -> None:
    (tmp_path / "teacher").write_text("a file where the folder should be")
    with pytest.raises(UserError, match="cannot be written"):
        save_checkpoint(tmp_path / "teacher" / "checkpoint_0000001.pt", build_network(SMALL), 1, {})


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_full_disk_keeps_the_old_checkpoint(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before, plain_open = saved.read_bytes(), Path.open
    with monkeypatch.context() as full_disk, pytest.raises(UserError, match="cannot be written"):
        full_disk.setattr(Path, "open", lambda path, mode: plain_open(Path("/dev/full"), mode))
        save_checkpoint(saved, build_network(SMALL), 501, {})
    assert saved.read_bytes() == before


def trained(path: Path) -> None:
    """A checkpoint with what a training leaves: weights, optimiser, memory bank, state of a random generator."""
    network, bank = build_network(SMALL), MemoryBank(size=2)
    optimizer = torch.optim.Adam(network.parameters())
    embedding = network(torch.rand(1, 1, 3, 16, 16))
    embedding.square().mean().backward()
    optimizer.step()
    bank.enqueue(embedding.detach(), torch.ones(embedding.shape[:1] + embedding.shape[2:], dtype=torch.int64))
    training = {"objective": bank.state_dict(), "optimizer": optimizer.state_dict(), "random": torch.get_rng_state()}
    save_checkpoint(path, network, 1, {**training, "settings": {"seed": "0"}, "progress": {"seconds": 0.5, "best": {}}})


def paraphrasers(path: Path) -> None:
    model = build_paraphrasers({"bottleneck": (4, 3)}, 2)
    optimizer = torch.optim.Adam(model.parameters())
    content = {"settings": {"teacher.checkpoint": "abc"}, "channels": {"bottleneck": [4, 3]}, "dimensions": 2}
    weights = {"iteration": 6, "model": model.state_dict(), "optimizer": optimizer.state_dict()}
    write_paraphrasers(path, {**content, **weights})


FILES: dict[str, tuple[Callable[[Path], None], Callable[[Path], Any]]] = {
    "checkpoint": (trained, load_checkpoint),
    "paraphraser": (paraphrasers, read_paraphrasers),
}


@pytest.mark.parametrize("kind", FILES)
def test_a_changed_bit_is_refused_or_changes_nothing(tmp_path: Path, kind: str) -> None:
    """Anywhere in the file: in tensors, in the structure, in what only the archive knows of."""
    write, read = FILES[kind]
    write(tmp_path / "sound.pt")
    sound, content = read(tmp_path / "sound.pt"), (tmp_path / "sound.pt").read_bytes()
    places = random.Random(kind)
    refused = 0
    for _ in range(200):
        damaged = bytearray(content)
        damaged[places.randrange(len(content))] ^= 1 << places.randrange(8)
        (tmp_path / "damaged.pt").write_bytes(damaged)
        try:
            found = read(tmp_path / "damaged.pt")
        except UserError as error:
            assert "\n" not in str(error) and "damaged.pt" in str(error)
            refused += 1
        else:
            assert_equal(found, sound)
    assert refused > 60


def as_earlier_versions_wrote_it(path: Path) -> None:
    document = torch.load(path, weights_only=True)
    del document["digest"]
    torch.save(document, path)


def test_a_checkpoint_without_a_digest_is_read_and_told(saved: Path, caplog: pytest.LogCaptureFixture) -> None:
    expected = load_checkpoint(saved)
    as_earlier_versions_wrote_it(saved)
    with caplog.at_level(logging.INFO):
        assert_equal(load_checkpoint(saved), expected)
    assert f"{saved} has no digest" in caplog.text
    content = saved.read_bytes()
    weight = content.index(expected["model"]["unet.head.weight"].numpy().tobytes())
    saved.write_bytes(content[:weight] + bytes([content[weight] ^ 64]) + content[weight + 1 :])
    with pytest.raises(UserError, match="damaged"):
        load_checkpoint(saved)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers_are_neither_written_nor_read(saved: Path, value: float) -> None:
    before = saved.read_bytes()
    network = build_network(SMALL)
    with torch.no_grad():
        network.head.weight[0] = value
    with pytest.raises(UserError, match=r"unet\.head\.weight holds NaN or infinite values; nothing was written"):
        save_checkpoint(saved, network, 501, {})
    assert saved.read_bytes() == before
    as_earlier_versions_wrote_it(saved)
    document = torch.load(saved, weights_only=True)
    document["model"]["unet.head.weight"][0] = value
    torch.save(document, saved)
    with pytest.raises(UserError, match=r"unet\.head\.weight holds NaN or infinite values"):
        load_network(saved)
