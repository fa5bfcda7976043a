"""Compression of the block-wise arrays: size, and speed of writing and reading, for each codec and shuffle.

    python benchmarks/codecs.py
    python benchmarks/codecs.py --affinities affinities.npy        # of a network, (3, z, y, x) uint8

One block of raw, affinities, fragments and segments of the labelled volume; without a file, affinities are made from
the labels as in `postprocess.py`. Times are CPU time per voxel, medians. The last line of the output is one JSON
object.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import h5py
import numpy as np
from chains.given_affinities import label_affinities
from numcodecs import Blosc

from pipeline.segmentation import connected_components, merge_scores, region_graph, relabel, seeded_watershed
from pipeline.volumes import compressor_of

BLOCK = (slice(100, 150), slice(100, 225), slice(100, 225))
QUICK = (slice(100, 120), slice(100, 160), slice(100, 160))
NEAREST = ((-1, 0, 0), (0, -1, 0), (0, 0, -1))
CODECS = (("zstd", 1), ("zstd", 3), ("zstd", 5), ("lz4", 1), ("lz4", 5), ("blosclz", 5), ("zlib", 1))
SHUFFLES = {"none": Blosc.NOSHUFFLE, "bytes": Blosc.SHUFFLE, "bits": Blosc.BITSHUFFLE}


def arrays(options: argparse.Namespace) -> dict[str, np.ndarray]:
    """One block of each array, by name."""
    block = QUICK if options.quick else BLOCK
    with h5py.File(options.labels) as file:
        raw, labels = file["raw"][block], file["labels"][:]
    made = np.load(options.affinities) if options.affinities else label_affinities(labels)
    affinities = np.ascontiguousarray(made[(slice(0, 3), *block)])
    fragments = seeded_watershed(affinities)
    edges, count, mean = region_graph(affinities, fragments, NEAREST)
    lut = connected_components(np.unique(fragments), edges, merge_scores(edges, mean, count), 0.5)
    segments = relabel(fragments, lut[:, 0], lut[:, 1])
    first = np.uint64(50 * labels[block].size)  # ids of a block in the midst of a volume
    return {"raw": raw, "affinities": affinities, "fragments": fragments + first, "segments": segments + first}


def timed(work: Callable[[], Any], repeats: int) -> tuple[float, Any]:
    """Median seconds of CPU time, and what came out."""
    seconds = []
    for _ in range(repeats):
        begun = time.process_time()
        result = work()
        seconds.append(time.process_time() - begun)
    return median(seconds), result


def measure(data: np.ndarray, codec: Blosc, repeats: int) -> dict[str, float]:
    """Compressed bytes, and nanoseconds of encoding and decoding, per voxel."""
    voxels = data[0].size if data.ndim == 4 else data.size
    encoding, encoded = timed(lambda: codec.encode(data), repeats)
    decoding, decoded = timed(lambda: codec.decode(encoded), repeats)
    assert bytes(decoded) == data.tobytes()
    times = {"encode": encoding / voxels * 1e9, "decode": decoding / voxels * 1e9}
    return {"bytes": len(encoded) / voxels, **times}


def main() -> None:
    """Measure all and print a table per array."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    data = Path(os.environ.get("EMDISTILL_DATA", "."))
    parser.add_argument("--labels", type=Path, default=data / "fib25_train.h5", help="HDF5 file with raw and labels")
    parser.add_argument("--affinities", type=Path, help="an .npy file of the same volume")
    parser.add_argument("--quick", action="store_true", help="a small block")
    options = parser.parse_args()
    results: dict[str, dict[str, dict[str, float]]] = {}
    for name, block in arrays(options).items():
        chosen = Blosc(**compressor_of(block.dtype))
        print(f"\n{name}, {block.dtype}\n| codec | shuffle | bytes per voxel | encode ns | decode ns | |")
        print("|---|---|---|---|---|---|")
        for library, level in CODECS:
            for shuffle, number in SHUFFLES.items():
                codec = Blosc(cname=library, clevel=level, shuffle=number)
                found = measure(block, codec, 3 if options.quick else 7)
                results.setdefault(name, {})[f"{library}-{level}-{shuffle}"] = found
                mark = "default" if codec == chosen else ""
                shown = f"{found['bytes']:.3f} | {found['encode']:.1f} | {found['decode']:.1f} | {mark}"
                print(f"| {library} {level} | {shuffle} | {shown} |")
    print(json.dumps({"quick": options.quick, "per_voxel": results}))


if __name__ == "__main__":
    main()
