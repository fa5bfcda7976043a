"""A process that has others do the same work, each killed at another moment, and then has the work finished.

`python killing_ground.py SCENARIO FOLDER POINTS` forks a process for each moment: TensorStore has not been used here,
so that it may. A moment is whatever Python does to names and files in the folder, and each write that TensorStore is
waited for. Prints one JSON object: how many moments there are, how many were tried, and what went wrong.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from toy_tasks import Doubled, Summed, expected_sums
from toy_tasks import make_run as toy_run
from voronoi_run import assert_same, everything, store_affinities
from voronoi_run import make_run as voronoi_run

from pipeline.engine.blocks import stage as stage_module
from pipeline.engine.chain import run_stages
from pipeline.errors import UserError
from pipeline.run import Run
from pipeline.stages import by_script
from pipeline.volumes import run_arrays, run_containers, tensors

NAMES = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate", "shutil.rmtree"}
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC


class Moments:
    """Counts what is done to files below a folder, and kills this process at one of them.

    Args:
        folder: what counts.
        last: the moment at which the process is killed; None: never.
    """

    def __init__(self, folder: Path, last: int | None) -> None:
        self.count, self._folder, self._last = 0, str(folder), last

    def watch(self) -> None:
        """Begin."""
        sys.addaudithook(self._hear)
        for module in (tensors, run_containers, run_arrays):
            module.wait = self._around(module.wait)  # type: ignore[attr-defined]

    def _hear(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open":
            path, _, flags = arguments
            if isinstance(flags, int) and flags & WRITING and str(path).startswith(self._folder):
                self._one()
        elif event in NAMES and str(arguments[0]).startswith(self._folder):
            self._one()

    def _around(self, wait: Callable[..., Any]) -> Callable[..., Any]:
        def waited(*arguments: Any) -> Any:
            self._one()
            found = wait(*arguments)
            self._one()
            return found

        return waited

    def _one(self) -> None:
        self.count += 1
        if self.count == self._last:
            os.kill(os.getpid(), signal.SIGKILL)


def in_child(work: Callable[[], None]) -> int:
    """Do something in a process of its own; its exit status, negative for the signal that killed it."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            work()
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


class Fresh:
    """A chain of two stages from nothing."""

    def prepare(self, folder: Path) -> None:
        toy_run(folder).save_config()

    def work(self, folder: Path) -> None:
        run = self._run(folder)
        assert run_stages(run, [Doubled(run), Summed(run)], False)

    def check(self, folder: Path) -> None:
        run = self._run(folder)
        np.testing.assert_array_equal(Summed(run).open().read(Summed(run).grid.box), expected_sums(run))

    def _run(self, folder: Path) -> Run:
        return Run(toy_config(folder))


class Overwritten(Fresh):
    """The same with another setting, in place of what is there; whoever goes back to the former one is not misled."""

    def prepare(self, folder: Path) -> None:
        toy_run(folder).save_config()
        super().work(folder)

    def work(self, folder: Path) -> None:
        run = self._run(folder)
        assert run_stages(run, [Doubled(run, 3), Summed(run, 3)], True)

    def check(self, folder: Path) -> None:
        run = self._run(folder)
        output = Summed(run, 3).open()
        np.testing.assert_array_equal(output.read(output.box), expected_sums(run, 3))

    def back(self, folder: Path) -> None:
        """The former setting: refused, with the reason, or done as if nothing had been."""
        try:
            Fresh.work(self, folder)
        except UserError as error:
            assert "stale" in str(error) and "--overwrite" in str(error), error
            return
        Fresh.check(self, folder)


class Segmented:
    """From affinities to a segmentation: graph, scores, lookup table."""

    def prepare(self, folder: Path) -> None:
        run = voronoi_run(folder, segment={"thresholds": [0.3]})
        store_affinities(run)
        shutil.copytree(folder, folder.with_name("undisturbed"))
        self.work(folder.with_name("undisturbed"))

    def work(self, folder: Path) -> None:
        run = voronoi_run(folder, segment={"thresholds": [0.3]})
        assert by_script.extract_fragments(run) and by_script.agglomerate(run) and by_script.segment(run)

    def check(self, folder: Path) -> None:
        runs = [
            voronoi_run(place, segment={"thresholds": [0.3]}) for place in (folder, folder.with_name("undisturbed"))
        ]
        assert_same(everything(runs[0]), everything(runs[1]))


class Predicted:
    """Affinities of a network, in tiles of several chunks."""

    def prepare(self, folder: Path) -> None:
        voronoi_run(folder)
        shutil.copytree(folder, folder.with_name("undisturbed"))
        self.work(folder.with_name("undisturbed"))

    def _run(self, folder: Path) -> Run:
        return voronoi_run(folder, predict={"block_size": [4, 16, 16], "tile_size": [4, 32, 16]})

    def work(self, folder: Path) -> None:
        assert by_script.predict(self._run(folder))

    def check(self, folder: Path) -> None:
        arrays = []
        for place in (folder, folder.with_name("undisturbed")):
            volume = by_script.prediction_stages(self._run(place))[0]
            assert isinstance(volume, stage_module.VolumeTask)
            arrays.append(volume.open().read(volume.grid.box))
        np.testing.assert_array_equal(arrays[0], arrays[1])


class Dropped:
    """The chain from raw to a graph, of which affinities are dropped on the way; and again with other fragments."""

    def prepare(self, folder: Path) -> None:
        self._chain(self._run(folder, keep="all"), False)
        undisturbed = folder.with_name("undisturbed")
        shutil.copytree(folder, undisturbed)
        self._chain(self._run(undisturbed, seed_distance=2, keep="all"), True)
        self._chain(self._run(folder), False)

    def _run(self, folder: Path, seed_distance: int = 3, keep: str = "until_used") -> Run:
        return voronoi_run(
            folder,
            predict={"block_size": [2, 40, 35], "tile_size": [4, 40, 35], "keep_affinities": keep},
            fragments={"context": [1, 6, 6], "seed_distance": seed_distance, "boundary_threshold": 0.98},
            cluster={"executor": "serial", "workers": 1},
            segment={"thresholds": [0.3]},
        )

    def _chain(self, run: Run, overwrite: bool) -> None:
        assert by_script.run_chain(run, overwrite) and by_script.segment(run, overwrite)

    def work(self, folder: Path) -> None:
        self._chain(self._run(folder, seed_distance=2), True)

    def check(self, folder: Path) -> None:
        run = self._run(folder, seed_distance=2)
        affinities = by_script.prediction_stages(run)[0]
        assert isinstance(affinities, stage_module.VolumeTask)
        assert not affinities.open().array.present().any(), "affinities are left that nobody needs"
        found = [everything(Run(made.config)) for made in (run, self._run(folder.with_name("undisturbed"), 2))]
        for arrays in found:
            del arrays["affinities"]
        assert_same(found[0], found[1])


SCENARIOS: dict[str, Any] = {
    "fresh": Fresh,
    "overwritten": Overwritten,
    "segmented": Segmented,
    "predicted": Predicted,
    "dropped": Dropped,
}


def toy_config(folder: Path) -> Any:
    """The config of a toy run that is there."""
    from pipeline.config import load_config

    return load_config(folder / "config.json")


def main(name: str, folder: Path, points: int) -> dict[str, Any]:
    """Try so many moments, spread over all; 0 for every one."""
    scenario = SCENARIOS[name]()
    kept, run = folder / "kept", folder / "run"
    assert in_child(lambda: scenario.prepare(kept)) == 0
    report = folder / "count"

    def count() -> None:
        moments = Moments(run, None)
        moments.watch()
        scenario.work(run)
        report.write_text(str(moments.count))

    def killed(at: int) -> None:
        Moments(run, at).watch()
        scenario.work(run)

    def finished() -> None:
        scenario.work(run)
        scenario.check(run)

    shutil.copytree(kept, run)
    assert in_child(count) == 0
    total = int(report.read_text())
    chosen = range(1, total + 1) if not points else np.unique(np.linspace(1, total, points).astype(int)).tolist()
    wrong = []
    for at in chosen:
        shutil.rmtree(run)
        shutil.copytree(kept, run)
        status = in_child(lambda at=at: killed(at))  # type: ignore[misc]
        if status != -signal.SIGKILL:
            wrong.append(f"moment {at}: was not killed, but ended with {status}")
            continue
        if hasattr(scenario, "back") and in_child(lambda: scenario.back(run)) != 0:
            wrong.append(f"moment {at}: the former settings are misled")
        if in_child(finished) != 0:
            wrong.append(f"moment {at}: cannot be finished, or gives something else")
    return {"moments": total, "tried": len(chosen), "wrong": wrong}


if __name__ == "__main__":
    sys.stdout.write(json.dumps(main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]))) + "\n")
