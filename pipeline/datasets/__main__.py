"""List the public data sets that a config can name: `python -m pipeline.datasets`."""

from __future__ import annotations

import sys

from ..terminal import replace_what_cannot_be_printed
from ..units import by
from .registry import DATASETS, PublicDataset


def dataset_card(dataset: PublicDataset) -> str:
    """A few lines about a data set: what, how large, under what terms, from where."""
    size = "download size unknown" if dataset.megabytes is None else f"about {dataset.megabytes} MB to download"
    lines = [
        dataset.name,
        f"    {dataset.description}",
        f"    {by(dataset.shape)} voxels of {by(dataset.voxel_size)} nm, {size}",
        f"    licence: {dataset.licence}",
        f"    cite: {dataset.reference}",
    ]
    for file in dataset.files:
        lines.append(f"    {file.url or f'{file.name}: by hand, from {dataset.page}'}")
        lines.append(f"        {file.checksum or 'no checksum published; recorded at the first use'}")
    return "\n".join(lines)


def main() -> None:
    """Write the list to standard output."""
    replace_what_cannot_be_printed()
    sys.stdout.write("\n".join(dataset_card(dataset) for dataset in DATASETS.values()) + "\n")


if __name__ == "__main__":
    main()
