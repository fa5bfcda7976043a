"""The published data sets that are known by name.

Checksums are those that others publish for the same URL (torch-em for CREMI, ISBI-2012 and FIB-25; Zenodo for SNEMI3D).
Where none is published, the checksum of the first download is recorded beside the cache, and a later one must agree.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class PublicFile:
    """One file to download.

    Attributes:
        name: its name in the cache.
        url: where it is published; None if it has to be obtained by hand.
        checksum: `sha256:…` or `md5:…` as published; None if none is.
        members: for a zip archive, the files to unpack.
    """

    name: str
    url: str | None
    checksum: str | None
    members: tuple[str, ...] = ()


@dataclass(frozen=True)
class PublicDataset:
    """One published volume with labels.

    Attributes:
        name: how a config calls it.
        description: what it shows.
        shape: extent in voxels, order z, y, x.
        voxel_size: nanometres, order z, y, x.
        files: what to download.
        raw_file, raw: file in the cache, and dataset inside it, of the raw intensities.
        labels_file, labels: the same of the labels; the file is None if it is the raw file.
        megabytes: size of the download, roughly; None if not known.
        licence: terms, as far as the publisher states them.
        reference: what to cite.
        page: where a person finds out more.
    """

    name: str
    description: str
    shape: tuple[int, int, int]
    voxel_size: tuple[int, int, int]
    files: tuple[PublicFile, ...]
    raw_file: str
    raw: str | None
    labels_file: str | None
    labels: str | None
    megabytes: int | None
    licence: str
    reference: str
    page: str


KASTHURI = "Kasthuri et al. 2015, Cell 162(3), doi:10.1016/j.cell.2015.06.054"
TAKEMURA = "Takemura et al. 2015, PNAS 112(44), doi:10.1073/pnas.1509820112"


def _cremi(sample: str, sha256: str) -> PublicDataset:
    name = f"sample_{sample}_20160501.hdf"
    return PublicDataset(
        name=f"cremi_{sample.lower()}",
        description=f"CREMI sample {sample}: ssTEM, adult Drosophila brain",
        shape=(125, 1250, 1250),
        voxel_size=(40, 4, 4),
        files=(PublicFile(name, f"https://cremi.org/static/data/{name}", f"sha256:{sha256}"),),
        raw_file=name,
        raw="volumes/raw",
        labels_file=None,
        labels="volumes/labels/neuron_ids",
        megabytes=170,
        licence="not stated by the publisher; ask before any use beyond research",
        reference="Funke et al. 2016, MICCAI challenge on circuit reconstruction from electron microscopy images, https://cremi.org",
        page="https://cremi.org/data",
    )


def _snemi3d(name: str, alias: str) -> PublicDataset:
    members = ("image/train-input.tif", "seg/train-labels.tif")
    archive = PublicFile(
        "snemi.zip",
        "https://zenodo.org/records/7142003/files/snemi.zip?download=1",
        "md5:3d25a7025f66698f33c7850ace885939",
        members,
    )
    return PublicDataset(
        name=name,
        description=f"{alias}: SEM of serial sections, mouse somatosensory cortex",
        shape=(100, 1024, 1024),
        voxel_size=(30, 6, 6),
        files=(archive,),
        raw_file=f"snemi/{members[0]}",
        raw=None,
        labels_file=f"snemi/{members[1]}",
        labels=None,
        megabytes=195,
        licence="CC-BY-4.0",
        reference=KASTHURI,
        page="https://zenodo.org/records/7142003",
    )


def _fib25(
    name: str, sample: str, shape: tuple[int, int, int], raw: tuple[str, str], labels_sha256: str
) -> PublicDataset:
    base = f"https://storage.googleapis.com/ffn-flyem-fib25/{sample}"
    raw_file, labels_file = f"{name}_{raw[0]}", f"{name}_groundtruth.h5"
    return PublicDataset(
        name=name,
        description=f"FIB-25 {sample}: FIB-SEM, Drosophila medulla",
        shape=shape,
        voxel_size=(10, 10, 10),
        files=(
            PublicFile(raw_file, f"{base}/{raw[0]}", f"sha256:{raw[1]}"),
            PublicFile(labels_file, f"{base}/groundtruth.h5", f"sha256:{labels_sha256}"),
        ),
        raw_file=raw_file,
        raw="raw",
        labels_file=labels_file,
        labels="stack",
        megabytes=None,
        licence="CC-BY; see the page",
        reference=TAKEMURA,
        page="https://github.com/janelia-flyem/neuroproof_examples",
    )


AC3 = PublicDataset(
    name="ac3",
    description=(
        "AC3: SEM of serial sections, mouse somatosensory cortex; its first 100 sections are the SNEMI3D test volume"
    ),
    shape=(256, 1024, 1024),
    voxel_size=(30, 6, 6),
    files=(PublicFile("AC3_inputs.h5", None, None), PublicFile("AC3_labels.h5", None, None)),
    raw_file="AC3_inputs.h5",
    raw="main",
    labels_file="AC3_labels.h5",
    labels="main",
    megabytes=None,
    licence="not stated by the publisher; ask before any use beyond research",
    reference=KASTHURI,
    page=(
        "https://software.rc.fas.harvard.edu/lichtman/vast/ (Kasthuri et al. data; save raw and labels as HDF5 with one"
        " dataset, main)"
    ),
)

ISBI_2012 = PublicDataset(
    name="isbi2012",
    description=(
        "ISBI-2012 training stack: ssTEM, Drosophila larva ventral nerve cord; labels made 3D from the membrane"
        " annotation"
    ),
    shape=(30, 512, 512),
    voxel_size=(50, 4, 4),
    files=(
        PublicFile(
            "isbi2012.h5",
            "https://oc.embl.de/index.php/s/h0TkwqxU0PJDdMd/download",
            "sha256:0e10fe909a1243084d91773470856993b7d40126a12e85f0f1345a7a9e512f29",
        ),
    ),
    raw_file="isbi2012.h5",
    raw="raw",
    labels_file=None,
    labels="labels/gt_segmentation",
    megabytes=None,
    licence="free for non-commercial segmentation research",
    reference=(
        "Cardona et al. 2010, PLoS Biol 8(10):e1000502; Arganda-Carreras et al. 2015, doi:10.3389/fnana.2015.00142"
    ),
    page="https://imagej.net/events/isbi-2012-segmentation-challenge",
)

DATASETS: dict[str, PublicDataset] = {
    dataset.name: dataset
    for dataset in (
        _cremi("A", "4c563d1b78acb2bcfb3ea958b6fe1533422f7f4a19f3e05b600bfa11430b510d"),
        _cremi("B", "887e85521e00deead18c94a21ad71f278d88a5214c7edeed943130a1f4bb48b8"),
        _cremi("C", "2874496f224d222ebc29d0e4753e8c458093e1d37bc53acd1b69b19ed1ae7052"),
        _snemi3d("snemi3d", "SNEMI3D training volume, the same as AC4"),
        _snemi3d("ac4", "AC4, the SNEMI3D training volume"),
        AC3,
        ISBI_2012,
        _fib25(
            "fib25",
            "training_sample2",
            (250, 250, 250),
            ("grayscale_maps.h5", "ea031c98ee2de778a9a3a1e6d410df5de73e4ac28022df8e7255d84e3394cafa"),
            "fd508e7aee1fe51ac9ae0460db4a841d275236f013c1f2552314b4f21b1010ea",
        ),
        _fib25(
            "fib25_520",
            "tstvol-520-1",
            (520, 520, 520),
            ("raw.h5", "0667e701c8b4464003d8a6cb0cf9deb2aa79fb415ec51deeac92e5f9c67a5a66"),
            "ae61ae78a9874eb35ae8e5ed29b4cbfe7bbd07a61789ddb70aef4deb2532eb4e",
        ),
    )
}
"""All public data sets by name. AC3 must be obtained by hand: the SNEMI3D test labels were never published as a
file."""
