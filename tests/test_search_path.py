"""Processes that are started beside a file called `pipeline.py` import this program."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

LOADER = """
import multiprocessing, sys
sys.path.insert(0, {root!r})
from pipeline.run import file_digest
from pipeline.search_path import safe_search_path

if __name__ == "__main__":
    context = multiprocessing.get_context({method!r})
    if {method!r} == "forkserver":
        context.set_forkserver_preload(["pipeline.run"])
    with safe_search_path():
        with context.Pool(1) as pool:
            print(pool.apply(file_digest, [__import__("pathlib").Path({file!r})]))
"""
"""As the loader of a training and the pilot of a stage start their processes."""


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_processes_of_multiprocessing_import_no_stranger(tmp_path: Path, method: str) -> None:
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "pipeline.py").write_text("raise SystemExit('a stranger was imported')\n")
    script = tmp_path / "script.py"
    script.write_text(LOADER.format(root=str(ROOT), method=method, file=str(script)))
    done = subprocess.run(
        [sys.executable, str(script)], cwd=tmp_path / "here", capture_output=True, text=True, timeout=500, check=False
    )
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.strip()) == 64
    assert "stranger" not in done.stderr
