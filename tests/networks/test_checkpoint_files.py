"""Checkpoints give back what was saved, and every wrong file is one clear line."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from pipeline.checkpoints import latest_checkpoint
from pipeline.config import SectionUnetConfig
from pipeline.errors import UserError
from pipeline.networks import build_network, load_network, save_checkpoint

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
