"""A run gives the same segmentation whatever store holds its graph, and no password lands in its directory."""

from __future__ import annotations

from pathlib import Path

import pytest
from database_servers import CLEAR_PASSWORD, PASSWORD
from graph_stores import STORES, Stores
from voronoi_run import assert_same, everything, make_run, store_affinities

from pipeline.config import dump_config, load_config
from pipeline.rag import open_rag
from pipeline.rag.address import PASSWORD_VARIABLE
from pipeline.run import Run
from pipeline.stages.by_script import agglomerate, extract_fragments, segment
from pipeline.viewer import write_report


def segmented(directory: Path, url: str) -> Run:
    """A run from affinities to segmentations."""
    run = make_run(directory, rag={"url": url})
    store_affinities(run)
    assert extract_fragments(run) and agglomerate(run) and segment(run)
    return run


@pytest.mark.parametrize("kind", STORES[1:])
def test_every_store_gives_the_same_segmentation(kind: str, stores: Stores, tmp_path: Path) -> None:
    reference = everything(segmented(tmp_path / "reference", "sqlite:///rag.sqlite"))
    assert_same(everything(segmented(tmp_path / kind, stores.url(kind))), reference)


def test_a_graph_that_moves_to_another_store_is_not_made_again(tmp_path: Path) -> None:
    run = segmented(tmp_path, "sqlite:///rag.sqlite")
    with open_rag(run.config.rag, tmp_path) as store, open_rag("files:///rag", tmp_path) as copy:
        store.copy_to(copy)
    (tmp_path / "rag.sqlite").unlink()
    moved = make_run(tmp_path, rag={"url": "files:///rag"})
    assert agglomerate(moved)
    stages = (tmp_path / "summary.json").read_text()
    assert '"blocks_done": 0' in stages
    assert not (tmp_path / "rag.sqlite").exists()


def test_no_password_lands_in_the_run_directory(
    stores: Stores, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    url = stores.url("postgresql")
    if PASSWORD not in url:
        pytest.skip("a server with a password that is not known here")
    run = segmented(tmp_path, url)
    write_report(run)
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    written = b"".join(path.read_bytes() for path in files) + caplog.text.encode()
    assert b"emdistill:***@" in written
    for secret in (PASSWORD, CLEAR_PASSWORD):
        assert secret.encode() not in written
    monkeypatch.setenv(PASSWORD_VARIABLE, CLEAR_PASSWORD)
    resumed = Run(load_config(tmp_path / "config.json"))
    assert dump_config(resumed.config) == dump_config(run.config)
    assert resumed.config_hash == run.config_hash
    assert agglomerate(resumed)
