"""A config is read as written, checked strictly, and never changes under the run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from pipeline.config import PhantomSource, apply_override, config_hash, dump_config, load_config, parse_config
from pipeline.errors import UserError
from pipeline.run import Run

ROOT = Path(__file__).parents[2]


def minimal() -> dict[str, Any]:
    """The least that a config must say: one volume, one student."""
    return {
        "run_directory": "runs/x",
        "volumes": {"sources": {"a": {"kind": "phantom"}}, "segment": {"source": "a"}},
        "student": {"network": {"name": "section_unet"}, "distillation": None},
    }


@pytest.fixture
def config_file(tmp_path: Path) -> Path:
    """A minimal config in a file."""
    path = tmp_path / "config.json"
    path.write_text(json.dumps(minimal()))
    return path


@pytest.mark.parametrize("path", sorted((ROOT / "configs").glob("*.json")), ids=lambda path: path.name)
def test_shipped_configs_are_valid(path: Path) -> None:
    assert load_config(path).volumes.sources


def test_the_cluster_config_takes_the_student_that_the_fib_sem_config_trains() -> None:
    trained, used = (load_config(ROOT / "configs" / f"{name}.json") for name in ("fib25", "slurm"))
    assert used.student.network == trained.student.network
    assert used.predict.checkpoint == "pretrained:fibsem-10nm-fine"
    assert used.fragments == trained.fragments


def test_run_directory_is_relative_to_the_current_directory(
    config_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    assert load_config(config_file).run_directory == str(elsewhere / "runs/x")


def test_run_directory_dot_is_the_folder_of_the_config_wherever_the_command_runs(
    config_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir("/")
    assert load_config(config_file, ["run_directory=."]).run_directory == str(tmp_path)


def test_run_directory_expands_the_home_folder(config_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/someone")
    assert load_config(config_file, ["run_directory=~/runs"]).run_directory == "/home/someone/runs"


def test_a_saved_run_directory_can_be_moved(config_file: Path, tmp_path: Path) -> None:
    config = load_config(config_file, [f"run_directory={tmp_path}/before"])
    Run(config).save_config()
    (tmp_path / "before").rename(tmp_path / "after")
    moved = load_config(tmp_path / "after" / "config.json")
    assert moved.run_directory == str(tmp_path / "after")
    assert moved.model_copy(update={"run_directory": config.run_directory}) == config


def test_dump_and_parse_are_inverse() -> None:
    document = json.loads((ROOT / "configs" / "mala_ac4.json").read_text())
    config = parse_config(document)
    assert parse_config(dump_config(config)) == config
    assert "validate" in dump_config(config)["volumes"]


def test_config_cannot_be_changed_after_loading(config_file: Path) -> None:
    config = load_config(config_file)
    with pytest.raises(ValidationError, match="frozen"):
        config.seed = 3  # type: ignore[misc]
    with pytest.raises(ValidationError, match="frozen"):
        config.predict.block_size = (1, 1, 1)  # type: ignore[misc]


def test_overrides_reach_nested_keys_list_items_and_absent_sections(config_file: Path) -> None:
    config = load_config(
        config_file,
        [
            "predict.block_size=[8,64,64]",
            "predict.offsets=[[-1,0,0],[0,-1,0],[0,0,-1],[0,0,-9]]",
            "predict.offsets.3.2=-12",
            "cluster.executor=serial",
            "volumes.validate.source=a",
            "volumes.sources.a.seed=7",
            "segment.thresholds=[0.5]",
        ],
    )
    assert config.predict.block_size == (8, 64, 64)
    assert config.predict.offsets[3] == (0, 0, -12)
    assert config.cluster.executor == "serial"
    assert config.volumes.validate_ is not None
    source = config.volumes.sources["a"]
    assert isinstance(source, PhantomSource) and source.seed == 7
    assert config.segment.thresholds == (0.5,)


def test_later_overrides_win(config_file: Path) -> None:
    assert load_config(config_file, ["seed=1", "seed=2"]).seed == 2


def test_overrides_keep_equal_signs_and_text_that_is_no_json() -> None:
    document: dict[str, Any] = {}
    apply_override(document, "predict.checkpoint=/a=b/c.pt")
    apply_override(document, "rag.url=null")
    assert document == {"predict": {"checkpoint": "/a=b/c.pt"}, "rag": {"url": None}}


@pytest.mark.parametrize(
    ("override", "line"),
    [
        ("seed", "--set: --set expects dotted.key=value, got 'seed'"),
        ("=1", "--set: --set expects dotted.key=value, got '=1'"),
        ("a..b=1", "--set: --set expects dotted.key=value, got 'a..b=1'"),
        ("seed.x=1", "seed.x: the path runs through a value that has no keys"),
        ("list.5=1", "list.5: '5' is no index of a list of 2 values"),
        ("list.last=1", "list.last: 'last' is no index of a list of 2 values"),
    ],
)
def test_overrides_that_make_no_sense_are_refused(override: str, line: str) -> None:
    with pytest.raises(UserError) as error:
        apply_override({"seed": 0, "list": [1, 2]}, override)
    assert str(error.value) == line


def test_hash_depends_on_values_not_on_how_they_were_written() -> None:
    short = parse_config(minimal())
    long = parse_config(dump_config(short))
    assert config_hash(short) == config_hash(long)
    assert config_hash(short.predict) != config_hash(short.predict.model_copy(update={"device": "cpu"}))
    assert config_hash({"a": 1, "b": 2}) == config_hash({"b": 2, "a": 1})
