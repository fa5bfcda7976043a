"""The way in from Python: what it is called, what importing it costs, and that the README's example runs."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

import pipeline
from pipeline import UserError, open_run
from pipeline.api_reference import PARTS, STEPS, api_reference

ROOT = Path(__file__).parents[1]

PUBLIC = {
    "pipeline": {
        "Run",
        "UserError",
        "agglomerate",
        "distill",
        "evaluate",
        "export",
        "extract_fragments",
        "import_data",
        "open_run",
        "predict",
        "run_all",
        "segment",
        "segmentations",
        "train_paraphraser",
        "train_teacher",
        "view",
        "write_report",
    },
    "pipeline.config": {"load_config"},
    "pipeline.distillation": {
        "AdversarialLoss",
        "AffinityGraphLoss",
        "GraphFlowLoss",
        "GraphRelationDistillation",
        "InstanceGraphLoss",
        "InterImageGraphLoss",
        "LogitsLoss",
        "MemoryBank",
        "Paraphraser",
        "embedding_affinities",
        "instance_nodes",
    },
    "pipeline.evaluation": {
        "adapted_rand_error",
        "expected_run_length",
        "score_volumes",
        "variation_of_information",
    },
    "pipeline.networks": {"build_network"},
    "pipeline.rag": {"open_rag"},
    "pipeline.segmentation": {
        "FragmentClasses",
        "agglomerate_global",
        "agglomerate_waterz",
        "region_graph",
        "seeded_watershed",
    },
}
"""Names that people's programs rely on: one that goes breaks them, one that comes is to be kept for good."""

TINY = {
    "volumes.sources.demo.shape": [20, 32, 32],
    "predict.block_size": [10, 16, 16],
    "fragments.context": [2, 4, 4],
    "cluster.executor": "serial",
} | {
    f"{role}.{key}": value
    for role in ("teacher", "student")
    for key, value in {
        "network.widths": [2, 4],
        "training.iterations": 2,
        "training.batch_size": 1,
        "training.patch_shape": [5, 32, 32],
        "training.validate_every": 2,
        "training.validate_shape": [5, 32, 32],
    }.items()
}
"""The demo in a few blocks and steps."""


@pytest.mark.parametrize("package", PUBLIC)
def test_public_names_stay_and_are_documented(package: str) -> None:
    documented = STEPS if package == "pipeline" else PARTS[package]
    assert set(documented) == PUBLIC[package]
    assert all(hasattr(import_module(package), name) for name in PUBLIC[package])
    assert PUBLIC[package] <= set(import_module(package).__all__)


def test_nothing_else_is_public() -> None:
    assert set(pipeline.__all__) == PUBLIC["pipeline"]
    assert set(PARTS) == set(PUBLIC) - {"pipeline"}
    with pytest.raises(AttributeError, match="no attribute 'train'"):
        pipeline.train  # noqa: B018


def test_api_md_is_up_to_date() -> None:
    written = (ROOT / "docs" / "API.md").read_text()
    assert written == api_reference(), "docs/API.md is stale: run `make docs`"


@pytest.mark.parametrize(
    ("statement", "absent"),
    [
        ("import pipeline", ("pydantic", "numpy", "torch")),
        ("from pipeline import distill, evaluate, open_run, predict, view", ("torch", "gunpowder", "neuroglancer")),
    ],
)
def test_imports_cost_only_what_is_used(statement: str, absent: tuple[str, ...]) -> None:
    program = f"import sys; {statement}; print([name for name in {absent} if name in sys.modules])"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT)
    assert result.stdout.strip() == "[]"


def test_a_run_is_opened_from_a_file_or_from_a_dictionary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    document = json.loads((ROOT / "configs" / "demo.json").read_text()) | {"run_directory": "."}
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(document))
    assert open_run(folder / "config.json").directory == folder
    assert open_run(document).directory == tmp_path
    as_text = open_run(document, set=["predict.block_size=[4,64,64]", "cluster.workers=3"])
    assert as_text == open_run(document, set={"predict.block_size": (4, 64, 64), "cluster.workers": 3})
    assert as_text.config.predict.block_size == (4, 64, 64)
    assert document["predict"]["block_size"] == [36, 128, 128], "the caller's dictionary changed"
    where = open_run(document, set={"run_directory": tmp_path / "there"})
    assert where.directory == tmp_path / "there"


def test_mistakes_are_users_errors(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="did you mean 'workers'"):
        open_run(ROOT / "configs" / "demo.json", set={"cluster.worker": 3})
    with pytest.raises(UserError, match="no such config file"):
        open_run(tmp_path / "nothing.json")


def test_the_example_of_the_readme_runs(tmp_path: Path) -> None:
    example = re.search(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert example is not None
    (tmp_path / "configs").mkdir()
    small = open_run(ROOT / "configs" / "demo.json", set={**TINY, "run_directory": tmp_path / "run"}).config
    (tmp_path / "configs" / "demo.json").write_text(small.model_dump_json(by_alias=True))
    (tmp_path / "example.py").write_text(example[1])
    result = subprocess.run(
        [sys.executable, "example.py"], cwd=tmp_path, capture_output=True, text=True, timeout=500, check=False
    )
    assert result.returncode == 0, result.stderr
    assert "adapted_rand_error" in result.stdout
    written = re.search(r"PosixPath\('(.*?)'\)", result.stdout)
    assert written is not None
    assert (Path(written[1]) / "s0" / "zarr.json").exists()
