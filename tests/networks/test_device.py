"""Which device `auto` means."""

from __future__ import annotations

import pytest
import torch

from pipeline.networks import choose_device


def test_numbered_processes_get_the_gpus_in_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    assert [choose_device("auto", "here", turn).index for turn in range(5)] == [0, 1, 2, 0, 1]
    assert choose_device("cuda:1", "here", 5) == torch.device("cuda:1")


def test_without_a_gpu_auto_is_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose_device("auto", "here", 5) == torch.device("cpu")
