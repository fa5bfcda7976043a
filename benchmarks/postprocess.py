"""From affinities to a segmentation, side by side: our stages 03 to 05, stock waterz, the classic chain, and volara.

    python benchmarks/postprocess.py --folder runs/postprocess
    python benchmarks/postprocess.py --quick                               # stock waterz alone, a few minutes
    python benchmarks/postprocess.py --network configs/fib25.json --checkpoint pretrained:fibsem-10nm
    python benchmarks/postprocess.py --volara-environment venvs/volara     # made with pip if it does not exist

`stock` is `waterz.agglomerate` as its users call it: the whole box in memory, one thread, nothing stored, recorded or
checked. `waterz` and `volara` go by blocks, of the same shape and with the same context as ours, in as many processes.
All get the same uint8 affinities and take turns; ours lie in zarr 3, which is the default, theirs in zarr 2. Seconds
are wall clock from the start to the written segmentation, and include what starting takes, which is measured on a
corner of one block besides; processor time is that of all processes. VOI (bits) is against the labels, with voxels of
id 0 given to the nearest segment, at each of the same merge thresholds. Affinities are made from the labels: smoothed,
with correlated and with plain noise; `--affinities FILE.npy` takes others, (3, z, y, x) uint8 of the labelled volume,
and `--network CONFIG` those of a student that is trained for a few minutes, or of `--checkpoint`, with the labels and
the fragments' settings of the config.

The last line of the output is one JSON object: `over_stock_waterz` (our voxels per second and core over those of stock
waterz, once started), the same by processor time, `voi_minus_stock` (each at its best threshold), `over_volara`,
`over_waterz` (our rate over theirs), the same of what is left without starting (`…_once_started`), rates and VOIs.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median

import h5py
import numpy as np
from chains.contenders import KINDS, Cost, Sweep, Volara, volara_python
from chains.given_affinities import Settings, label_affinities, make_run
from chains.network_affinities import network_affinities, run_of_config
from scipy import ndimage

from pipeline.config import dump_config
from pipeline.evaluation import variation_of_information
from pipeline.run import Run

THRESHOLDS = (0.5, 0.4, 0.6, 0.7, 0.8)
"""Merge thresholds, 1 - affinity; the first is the one that is timed."""


def voi_of(sweep: Sweep, thresholds: Sequence[float], labels: np.ndarray) -> list[dict[str, float]]:
    """VOI at each threshold, the lowest first."""
    found = []
    for threshold in thresholds:
        segmentation = sweep(threshold)[tuple(slice(0, extent) for extent in labels.shape)]
        if not segmentation.all():
            nearest = ndimage.distance_transform_edt(segmentation == 0, return_distances=False, return_indices=True)
            segmentation = segmentation[tuple(nearest)]
        voi = variation_of_information(segmentation, labels)
        found.append({"voi": voi.split + voi.merge, "split": voi.split, "merge": voi.merge, "threshold": threshold})
    return sorted(found, key=lambda one: one["voi"])


def load(options: argparse.Namespace) -> tuple[np.ndarray, np.ndarray, Settings]:
    """Affinities (3, z, y, x), tiled with mirrored copies as asked, the labels (z, y, x) of their first tile, and what
    our stages go by.
    """
    settings = Settings()
    if options.network is not None:
        source = run_of_config(options.network, options.iterations, options.folder.resolve(), options.checkpoint)
        given, labels = network_affinities(source)
        config = source.config
        voxel_size = tuple(source.open_raw(config.volumes.segment.source).voxel_size)
        settings = Settings(tuple(config.predict.write_block), voxel_size, dump_config(config.fragments))
    else:
        with h5py.File(options.labels) as file:
            labels = file[options.dataset][:]
        labelled = labels[:100, :160, :160] if options.quick else labels
        given = np.load(options.affinities) if options.affinities else label_affinities(labelled)
    if options.quick:
        labels = labels[:100, :160, :160]
    affinities = given[(slice(0, 3), *(slice(0, extent) for extent in labels.shape))]
    for axis in np.repeat((1, 2, 3), [count.bit_length() - 1 for count in options.tiles]):
        affinities = np.concatenate([affinities, np.flip(affinities, axis)], axis)
    return affinities, labels, settings


def parse_arguments() -> argparse.Namespace:
    """The arguments of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    data = Path(os.environ.get("EMDISTILL_DATA", "."))
    parser.add_argument("--labels", type=Path, default=data / "fib25_train.h5", help="HDF5 file with labels")
    parser.add_argument("--dataset", default="labels", help="name of the labels in it")
    parser.add_argument("--affinities", type=Path, help="an .npy file (default: made from the labels)")
    parser.add_argument("--network", type=Path, help="a config whose student is trained and predicts")
    parser.add_argument("--checkpoint", help="that predicts instead, a file or pretrained:NAME")
    parser.add_argument("--iterations", type=int, default=400, help="of that training")
    parser.add_argument("--tiles", type=int, nargs=3, help="mirrored copies, powers of two, along z y x")
    parser.add_argument("--folder", type=Path, default=Path("runs/postprocess"))
    parser.add_argument("--volara-environment", type=Path, help="made if it does not exist; volara takes part then")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--repeats", type=int, help="turns of each (default: 3, or 1 with --quick)")
    parser.add_argument("--contenders", nargs="+", choices=KINDS, help="who takes part besides us")
    parser.add_argument("--without-voi", action="store_true", help="time only")
    parser.add_argument(
        "--quick", action="store_true", help="a corner of 100x160x160 voxels and 7 mirrored copies, once"
    )
    options = parser.parse_args()
    options.tiles = options.tiles or ((2, 2, 2) if options.quick else (1, 1, 1))
    if options.contenders is None:
        by_blocks = [] if options.quick else ["waterz"]
        options.contenders = ["stock", *by_blocks, *(["volara"] if options.volara_environment else [])]
    elif ("volara" in options.contenders) != (options.volara_environment is not None):
        parser.error("volara takes part with --volara-environment, and with it alone")
    return options


@dataclass
class Measured:
    """What one contender took, turn by turn, and its VOI, best first."""

    starts: list[Cost] = field(default_factory=list)
    costs: list[Cost] = field(default_factory=list)
    voi: list[dict[str, float]] = field(default_factory=list)

    @property
    def seconds(self) -> float:
        """Wall clock, the median of the turns."""
        return median(cost.wall for cost in self.costs)

    @property
    def start(self) -> float:
        """What starting takes of it."""
        return median(cost.wall for cost in self.starts)

    @property
    def once_started(self) -> float:
        """What is left of it."""
        return max(self.seconds - self.start, 1e-9)

    @property
    def processor(self) -> float:
        """Processor time once started, the median of the turns."""
        used = median(cost.processor for cost in self.costs) - median(cost.processor for cost in self.starts)
        return max(used, 1e-9)


def take_turns(options: argparse.Namespace) -> tuple[int, tuple[int, ...], dict[str, Measured]]:
    """Measure all in turn: voxels, the block, and what each took."""
    affinities, labels, settings = load(options)
    if options.volara_environment is not None:
        Volara.python = volara_python(options.volara_environment)
    folder = options.folder.resolve()
    kinds = {name: kind for name, kind in KINDS.items() if name in ("ours", *options.contenders)}
    settings = replace(settings, threshold=THRESHOLDS[0])
    corner = affinities[:, :32, :64, :64]
    runs: dict[str, tuple[Run, Run]] = {}
    for name in kinds:
        ours = replace(settings, storage_format=3 if name == "ours" else 2)
        runs[name] = (
            make_run(folder / f"{name}_corner", corner, replace(ours, block=corner.shape[1:]), options.workers),
            make_run(folder / name, affinities, ours, options.workers),
        )
    measured = {name: Measured() for name in kinds}
    for turn in range(options.repeats or (1 if options.quick else 3)):
        scored = turn == 0 and not options.without_voi
        for name, kind in kinds.items():
            small, whole = (kind(run, folder, options.workers) for run in runs[name])
            measured[name].starts.append(small.measure(THRESHOLDS[:1])[0])
            cost, sweep = whole.measure(THRESHOLDS if scored else THRESHOLDS[:1])
            measured[name].costs.append(cost)
            if scored:
                measured[name].voi = voi_of(sweep, THRESHOLDS, labels)
    return affinities[0].size, settings.block, measured


def ratios(measured: Mapping[str, Measured], workers: int) -> dict[str, float | None]:
    """Ours against each of the others."""
    ours = measured["ours"]
    result: dict[str, float | None] = {}
    for name, other in measured.items():
        if name == "stock":
            result["over_stock_waterz"] = round(other.once_started / (ours.once_started * workers), 2)
            result["over_stock_waterz_by_processor_time"] = round(other.processor / ours.processor, 2)
            result["voi_minus_stock"] = round(ours.voi[0]["voi"] - other.voi[0]["voi"], 3) if other.voi else None
        elif name != "ours":
            result[f"over_{name}"] = round(other.seconds / ours.seconds, 2)
            result[f"over_{name}_once_started"] = round(other.once_started / ours.once_started, 2)
    return result


def table(voxels: int, measured: Mapping[str, Measured], cores: Mapping[str, int]) -> str:
    """Times and rates, then VOI at each threshold."""
    lines = [
        "| | seconds | of which starting | processes | Mvoxel/s | per core once started | VOI | split | merge | at |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name, one in measured.items():
        rate, per_core = voxels / one.seconds / 1e6, voxels / one.once_started / cores[name] / 1e6
        best = one.voi[0] if one.voi else None
        score = (
            f"{best['voi']:.3f} | {best['split']:.3f} | {best['merge']:.3f} | {best['threshold']}" if best else "|||"
        )
        lines.append(
            f"| {name} | {one.seconds:.1f} | {one.start:.1f} | {cores[name]} | {rate:.2f} | {per_core:.2f} | {score} |"
        )
    scored = {
        name: {found["threshold"]: found["voi"] for found in one.voi} for name, one in measured.items() if one.voi
    }
    if scored:
        lines += ["", f"| VOI at | {' | '.join(scored)} |", "|---" * (1 + len(scored)) + "|"]
        lines += [
            f"| {threshold} | {' | '.join(f'{voi[threshold]:.3f}' for voi in scored.values())} |"
            for threshold in sorted(THRESHOLDS)
        ]
    return "\n".join(lines)


def main() -> None:
    """Measure all in turn and print the tables and the ratios."""
    options = parse_arguments()
    options.folder.mkdir(parents=True, exist_ok=True)
    voxels, block, measured = take_turns(options)
    print(f"{voxels / 1e6:.1f} Mvoxel, {options.workers} processes, blocks of {block}")
    print(table(voxels, measured, {name: 1 if name == "stock" else options.workers for name in measured}))
    details = {
        "voxels_per_second": {name: voxels / one.seconds for name, one in measured.items()},
        "start_seconds": {name: one.start for name, one in measured.items()},
        "seconds": {name: [cost.wall for cost in one.costs] for name, one in measured.items()},
        "processor_seconds": {name: [cost.processor for cost in one.costs] for name, one in measured.items()},
        "voi": {name: one.voi for name, one in measured.items()},
    }
    print(json.dumps({"quick": options.quick, "voxels": voxels, **ratios(measured, options.workers), **details}))


if __name__ == "__main__":
    main()
