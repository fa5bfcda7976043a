"""Whatever a config file holds: it is a config, or one line says what is wrong with it."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
from mutations import damaged
from script_calls import call
from script_logging import keep_logging  # noqa: F401  a fixture for all tests here

CONFIGS = sorted((Path(__file__).parents[2] / "configs").glob("*.json"))
STEPS = ("status", "train-teacher --dry-run", "distill --dry-run", "run --dry-run", "import --dry-run")
DEEP = 100_000


def told(config: Path, *options: str) -> str:
    """What a command says of a config that is none, in one line."""
    called = call("status", str(config), *options)
    assert called.complaint() == "" and called.status == 2, called
    assert len(called.told) == 1 and len(called.told[0]) < 1000
    return called.told[0]


def document(directory: Path) -> dict[str, Any]:
    """A small config."""
    return {
        "run_directory": str(directory / "run"),
        "volumes": {"sources": {"a": {"kind": "phantom"}}, "segment": {"source": "a"}},
        "student": {"network": {"name": "section_unet"}, "distillation": None},
    }


@pytest.mark.parametrize(
    "text",
    [
        "[" * DEEP + "]" * DEEP,
        '{"a":' * DEEP + "1" + "}" * DEEP,
        '{"seed": ' + "9" * 5000 + "}",
        '{"seed": 1e999}',
        '{"seed": NaN}',
        "\0",
        "\ufeff{}",
        '{"run_directory": "\\ud800"}',
        "",
        "7",
    ],
    ids=["nested lists", "nested objects", "5,000 digits", "1e999", "NaN", "NUL", "mark", "half a letter", "", "7"],
)
def test_text_that_is_no_config_is_one_line(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.json").write_text(text)
    assert str(tmp_path / "config.json") in told(tmp_path / "config.json") or "run_directory" in text


@pytest.mark.parametrize(
    ("key", "value", "where"),
    [
        ("run_directory", "\0", "run_directory"),
        ("run_directory", "~nouser/x", "run_directory"),
        ("run_directory", "x" * 5000, ""),
        ("run_directory", "\ud800", "run_directory"),
        (
            "volumes",
            {"sources": {"a": {"kind": "file", "path": "\0"}}, "segment": {"source": "a"}},
            "volumes.sources.a",
        ),
        ("volumes", {"sources": {"a": {"kind": "file", "path": "~nouser/x"}}, "segment": {"source": "a"}}, "nouser"),
        ("seed", 10**40, "seed"),
        ("predict", {"block_size": [10**30, 1, 1]}, "predict.block_size"),
        ("cluster", {"workers": 10**20}, "cluster.workers"),
    ],
)
def test_values_that_no_machine_can_have_are_one_line(tmp_path: Path, key: str, value: Any, where: str) -> None:
    config = tmp_path / "config.json"
    config.write_text(json.dumps({**document(tmp_path), key: value}))
    called = call("run", str(config), "--dry-run")
    assert called.complaint() == "" and called.status == 2, called
    assert where in called.told[-1]


def test_absurd_widths_are_told_before_memory_is_asked_for(tmp_path: Path) -> None:
    config = tmp_path / "config.json"
    network = {"name": "section_unet", "widths": [1_000_000, 1_000_000]}
    given = {**document(tmp_path), "student": {"network": network, "distillation": None}}
    given["volumes"]["train"] = [{"source": "a"}]
    config.write_text(json.dumps(given))
    called = call("distill", str(config), "--dry-run")
    assert called.complaint() == "" and called.status == 2, called
    assert "network.widths: the network section_unet would have 57,0" in called.told[-1]


@pytest.mark.parametrize(
    "override", ["a=" + "9" * 5000, "seed=" + "[" * DEEP, "seed=1e999", "run_directory=\0", "=\0", "a.b.c=1"]
)
def test_overrides_that_make_no_sense_are_one_line(tmp_path: Path, override: str) -> None:
    config = tmp_path / "config.json"
    config.write_text(json.dumps(document(tmp_path)))
    told(config, "--set", override)


def fuzz(directory: Path, cases: int, seed: str) -> None:
    """Damage a config, and call a command that computes nothing, many times."""
    wrong = []
    for number in range(cases):
        chance = random.Random(f"{seed} {number}")
        example = chance.choice(CONFIGS)
        content = json.loads(example.read_text())
        content["run_directory"] = str(directory / "run")
        text = json.dumps(content).encode()
        for _ in range(chance.choice([1, 1, 3])):
            text = damaged(text, chance)
        (directory / "config.json").write_bytes(text)
        step, *options = chance.choice(STEPS).split()
        complaint = call(step, str(directory / "config.json"), *options).complaint()
        if complaint:
            wrong.append(f"case {seed} {number}, {example.name}, {step}: {complaint}")
    assert not wrong, f"{len(wrong)} of {cases} attacks:\n" + "\n".join(wrong)


def test_damaged_configs_are_told(tmp_path: Path) -> None:
    fuzz(tmp_path, 50, "short")


@pytest.mark.slow
def test_many_damaged_configs_are_told(tmp_path: Path) -> None:
    fuzz(tmp_path, 400, "long")
