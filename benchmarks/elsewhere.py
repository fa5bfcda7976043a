"""What students know of raw that nobody labelled: their affinities there, against a teacher with all labels.

    python benchmarks/elsewhere.py --out runs/gain

Reads the finished cells of `semi_supervised.py` on FIB-25. A segmentation hangs on single false merges, so its scores
scatter from seed to seed by as much as variants differ. This looks at all affinities one by one instead, in the middle
of the raw without labels: how often is a pair of voxels that the reference holds apart (an affinity below one half)
told from one that it holds together? That is the area under the ROC curve, 1 for always, 0.5 for guessing. Teachers who
know fewer labels than the reference are judged like their students.

The last line of the output is one JSON object: means over seeds by data set and variant.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import mean

import numpy as np
import torch
from funlib.geometry import Coordinate
from gain.agreement import told_apart
from gain.cells import Plan, finished_results
from gain.datasets import ROOT, SEMI_SUPERVISED_DATASETS, unlabelled_volumes
from gain.table import row, spread
from gain.variants import SEMI_SUPERVISED

from pipeline.config import load_config
from pipeline.networks import best_engine, build_engine, choose_autocast, compact, load_network
from pipeline.run import Run
from pipeline.stages.importing import ensure_imported
from pipeline.stages.inference import Predictor
from pipeline.volumes import Box
from pipeline.volumes.volume import Volume

SHAPE = Coordinate(50, 256, 256)
WHOLE = "fib25"
"""The data set whose teacher knows all labels."""


@dataclass(frozen=True)
class Place:
    """Raw without labels, and what is predicted there.

    Attributes:
        raw: the volume.
        box: voxels whose affinities are predicted.
        run: whose config says which ones.
    """

    raw: Volume
    box: Box
    run: Run

    def affinities(self, checkpoint: Path) -> np.ndarray:
        """Affinities that a trained network predicts in the box, (k, z, y, x) uint8."""
        network, _ = load_network(checkpoint)
        network, cpu = compact(network.eval()), torch.device("cpu")
        engine = build_engine(best_engine(cpu), network, choose_autocast("auto", cpu), torch.get_num_threads())
        predictor = Predictor(network, self.run.config.predict.offsets, engine)
        return predictor.quantised(self.raw.read_mirrored(predictor.read_box(self.box)), self.box)


def middle_of_the_unlabelled(out: Path) -> Place:
    """The place where all are compared; its raw is imported into a run directory of its own."""
    settings = {"run_directory": str((out / "elsewhere").resolve()), **unlabelled_volumes(WHOLE)}
    overrides = [f"{key}={json.dumps(value)}" for key, value in settings.items()]
    run = Run(load_config(ROOT / "configs" / "fib25.json", overrides))
    ensure_imported(run, ["unlabelled"])
    raw = run.open_raw("unlabelled")
    begin = (raw.shape - SHAPE) / 2
    return Place(raw, Box(begin, begin + SHAPE), run)


def compare(out: Path, reference: Path, judge: Callable[[Path], float]) -> dict[str, dict[str, list[float]]]:
    """What each finished cell gets, by data set and variant."""
    plan = Plan(out)
    found: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for result in finished_results(out):
        cell = plan.cell(result["dataset"], result["variant"], result["seed"])
        of_interest = cell.dataset in SEMI_SUPERVISED_DATASETS and cell.variant in SEMI_SUPERVISED
        if of_interest and cell.checkpoint.is_file() and cell.checkpoint.resolve() != reference.resolve():
            found[cell.dataset][cell.variant].append(judge(cell.checkpoint))
    return found


def as_markdown(found: dict[str, dict[str, list[float]]]) -> str:
    """One row per data set; the number of seeds behind each mean."""
    variants = [variant for variant in SEMI_SUPERVISED if any(variant in row for row in found.values())]
    lines = [row(["", *variants]), row(["---"] * (1 + len(variants)))]
    for dataset, areas in found.items():
        cells = [f"{spread(areas[name])} ({len(areas[name])})" if name in areas else "" for name in variants]
        lines.append(row([dataset, *cells]))
    return "\n".join(lines)


def main() -> None:
    """Compare all cells with the reference, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/gain"), help="where `semi_supervised.py` left its cells")
    parser.add_argument(
        "--reference", type=Path, help="a teacher's checkpoint; default: that of all labels below --out"
    )
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    reference = options.reference or Plan(options.out).teacher(WHOLE).checkpoint
    place = middle_of_the_unlabelled(options.out)
    truth = place.affinities(reference)
    found = compare(options.out, reference, lambda checkpoint: told_apart(place.affinities(checkpoint), truth))
    print(as_markdown(found))
    means = {name: {variant: round(mean(values), 4) for variant, values in row.items()} for name, row in found.items()}
    print(json.dumps(means))


if __name__ == "__main__":
    main()
