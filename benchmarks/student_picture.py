"""How good networks are for the time that they take, as one picture.

    python benchmarks/student_picture.py docs/students.json --to docs/students.png

The file holds a list of networks, each with `name`, `kind` (`teacher`, `alone`, `distilled`), `seconds` of one thread
per million voxels, and `voi` and `voi_neurons`: a number per seed. Where they come from stands in docs/BENCHMARKS.md.
"""

from __future__ import annotations

import argparse
import json
from itertools import groupby
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import matplotlib
from matplotlib.axes import Axes

matplotlib.use("Agg")
from matplotlib import pyplot

COLOURS = {"teacher": "black", "alone": "tab:orange", "distilled": "tab:blue"}
PANELS = {"voi": "all that is labelled", "voi_neurons": "neurons (without a glial cell)"}


def main() -> None:
    """Draw the picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("networks", type=Path)
    parser.add_argument("--to", type=Path, default=Path("students.png"))
    options = parser.parse_args()
    networks = json.loads(options.networks.read_text())
    figure, panels = pyplot.subplots(1, len(PANELS), figsize=(11, 4.2), sharey=True)
    for axes, (score, title) in zip(panels, PANELS.items(), strict=True):
        draw(axes, networks, score)
        axes.set_title(title)
    panels[0].set_ylabel("VOI in bits (mean over six watersheds)")
    panels[0].legend(frameon=False)
    figure.tight_layout()
    figure.savefig(options.to, dpi=110)


def draw(axes: Axes, networks: list[dict[str, Any]], score: str) -> None:
    """One score of all networks over their time: means over seeds, standard deviations as bars."""
    ordered = sorted(networks, key=lambda network: (network["kind"], network["seconds"]))
    for kind, group in groupby(ordered, key=lambda network: network["kind"]):
        members = list(group)
        seconds = [network["seconds"] for network in members]
        centres = [mean(network[score]) for network in members]
        spread = [stdev(network[score]) if len(network[score]) > 1 else 0 for network in members]
        label = kind if kind == "teacher" else f"student, {kind}"
        line = "none" if kind == "teacher" else "-"
        axes.errorbar(seconds, centres, spread, marker="o", linestyle=line, capsize=3, color=COLOURS[kind], label=label)
        for network, x, y in zip(members, seconds, centres, strict=True):
            axes.annotate(network["name"], (x, y), xytext=(6, 5), textcoords="offset points", fontsize=8)
    axes.set_xscale("log")
    axes.margins(x=0.2)
    axes.set_xlabel("seconds of one thread per million voxels")
    axes.grid(alpha=0.3)


if __name__ == "__main__":
    main()
