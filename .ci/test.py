"""Run the default tests in two processes side by side, each on its half of the tree: `python .ci/test.py [OPTION …]`.

Many tests wait for workers, jobs and servers, so that one process leaves much of two cores idle. Options are those of
pytest and go to both halves. The first half's output is shown as it comes, the second one's when both have ended.
"""

import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import IO

ROOT = Path(__file__).resolve().parents[1]
FIRST = ["tests/engine", "tests/slurm", "tests/stages", "tests/workflows/test_batch_scripts.py"]
"""The first half, with all tests that start a SLURM; the second half is everything else, and exports."""
FIRST_LEAVES_OUT = ["--ignore=tests/stages/export"]
SECOND_LEAVES_OUT = [
    "--ignore=tests/engine",
    "--ignore=tests/slurm",
    "--ignore-glob=tests/stages/test_*.py",
    "--ignore=tests/workflows/test_batch_scripts.py",
]
PASSED, NO_TESTS = 0, 5
"""Two of pytest's statuses; options may leave no test in one of the halves."""


def main() -> int:
    """0 if all tests passed, otherwise what pytest ended with."""
    signal.signal(signal.SIGINT, lambda *_: None)  # the halves hear Ctrl-C themselves, and stop their servers
    command = [sys.executable, "-m", "pytest", "-m", "not slow", *sys.argv[1:]]
    with tempfile.TemporaryFile() as kept:
        second = subprocess.Popen([*command, *SECOND_LEAVES_OUT], stdout=kept, stderr=subprocess.STDOUT, cwd=ROOT)
        first = subprocess.Popen(
            [*command, *FIRST_LEAVES_OUT, *FIRST], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, cwd=ROOT
        )
        end_on_request(first, second)
        first_lines = shown(first.stdout)
        statuses = first.wait(), second.wait()
        kept.seek(0)
        second_lines = shown(kept)
    print("first half:", first_lines[-1])
    print("second half:", second_lines[-1])
    return next((status for status in statuses if status not in (PASSED, NO_TESTS)), min(statuses))


def end_on_request(*halves: subprocess.Popen[bytes]) -> None:
    """Have whatever ends this process end the halves in its place; then it ends by itself."""
    signal.signal(signal.SIGTERM, lambda *_: [half.send_signal(signal.SIGINT) for half in halves])


def shown(output: IO[bytes] | None) -> list[str]:
    """The lines of an output, each printed when it comes."""
    lines = [""]
    for line in output or ():
        lines.append(line.decode(errors="replace").rstrip("\n"))
        print(lines[-1], flush=True)
    return lines


if __name__ == "__main__":
    sys.exit(main())
