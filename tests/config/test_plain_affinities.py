"""What networks with plain affinities cannot do is said before anything is trained."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pipeline.config import compared_offsets, load_config
from pipeline.errors import UserError

CONFIG = Path(__file__).parents[2] / "configs" / "fib25.json"
NEAR = [[-1, 0, 0], [0, -1, 0], [0, 0, -1]]


def plain(role: str, offsets: list[list[int]] = NEAR, channels: int = 0) -> list[str]:
    return [f"{role}.network.embedding_channels={channels}", f"{role}.network.affinity_offsets={json.dumps(offsets)}"]


def overrides(*given: Any) -> list[str]:
    alone = ["student.offsets=null", "student.distillation.offsets=null"]
    return [*alone, *(text for one in given for text in ([one] if isinstance(one, str) else one))]


@pytest.fixture(autouse=True)
def data(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("EMDISTILL_DATA", str(tmp_path))


def test_a_pair_of_plain_networks_is_compared_where_both_have_affinities() -> None:
    config = load_config(CONFIG, overrides(plain("teacher"), plain("student")))
    assert [list(offset) for offset in compared_offsets(config)] == NEAR


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ((plain("teacher", [], 0),), "embedding_channels is 0, so affinity_offsets must name"),
        ((plain("student", [*NEAR, [0, 0, -1]]),), "affinity_offsets names an offset twice"),
        ((plain("student", [*NEAR, [0, 0, -7]]),), r"names \[0, 0, -7\], which is not in targets.offsets"),
        ((plain("student", NEAR[:2]), plain("teacher")), r"predict.offsets names \[0, 0, -1\], which student.network"),
        (
            (plain("teacher"), plain("student", NEAR, 16)),
            r"compares affinities at .*, which teacher.network does not give",
        ),
        (
            (plain("teacher"), plain("student"), "student.distillation.node_weight=0.1"),
            "student.network.embedding_channels is 0, but the weights of node",
        ),
        (
            (plain("teacher"), plain("student"), "student.offsets=[[0,-4,0]]"),
            "student.offsets names no offset that student.network gives",
        ),
        (
            (plain("student", NEAR[:1], 16), "student.offsets=[[0,-1,0],[0,0,-1]]"),
            r"student.network.affinity_offsets names \[-1, 0, 0\], which nothing would teach",
        ),
        (
            (
                plain("teacher"),
                f"student.distillation.offsets={json.dumps(NEAR)}",
                f"predict.offsets={json.dumps([*NEAR, [0, -4, 0]])}",
                "fragments.method=mutex_watershed",
            ),
            r"teacher.network does not give affinities at \[0, -4, 0\], of which volumes.validate makes",
        ),
        (("student.distillation.offsets=[]",), "student.distillation.offsets"),
        (("targets.offsets=[]",), "targets.offsets"),
        (("targets.balanced=false", "targets.background_weight=1.0"), "background_weight is a weight in the balance"),
    ],
)
def test_what_no_network_gives_is_refused(given: tuple[Any, ...], message: str) -> None:
    far = "targets.offsets=[[-1,0,0],[0,-1,0],[0,0,-1],[0,-4,0]]"
    with pytest.raises(UserError, match=message):
        load_config(
            CONFIG,
            overrides(
                "teacher.network.affinity_offsets=[]",
                "student.network.affinity_offsets=[]",
                "teacher.network.embedding_channels=16",
                "student.network.embedding_channels=16",
                far,
                *given,
            ),
        )
