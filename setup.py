"""Packaging of emdistill: everything that is imported is declared here."""

import re
import shutil
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

here = Path(__file__).parent
version = re.search(r'__version__ = "([^"]+)"', (here / "pipeline" / "__init__.py").read_text()).group(1)


class BuildWithConfigs(build_py):
    """Puts configs/ into the package, so that `emdistill init` has them without the repository."""

    def run(self) -> None:
        """Build as usual, then copy the configs beside the modules."""
        super().run()
        if not self.editable_mode:
            shutil.copytree(here / "configs", Path(self.build_lib) / "pipeline" / "configs", dirs_exist_ok=True)


setup(
    name="emdistill",
    version=version,
    description="Distil heavy EM segmentation networks into light ones and run them block by block over any volume",
    long_description=(here / "README.md").read_text(),
    long_description_content_type="text/markdown",
    license="MIT",
    python_requires=">=3.11,<3.14",
    packages=find_packages(include=["pipeline", "pipeline.*"]),
    package_data={
        "pipeline": ["py.typed", "pretrained/*", "viewer/templates/*.html", "engine/status/templates/*.html"]
    },
    cmdclass={"build_py": BuildWithConfigs},
    entry_points={"console_scripts": ["emdistill = pipeline.commands.console:main"]},
    install_requires=[
        "torch==2.13.0",
        # gunpowder decides which zarr there is: 1.4 needs zarr 2, 1.5 needs zarr 3 and Python 3.12.
        "gunpowder==1.4.4; python_version < '3.12'",
        "gunpowder==1.5.0; python_version >= '3.12'",
        "zarr>=2.18,<3; python_version < '3.12'",
        "zarr>=3.1,<4; python_version >= '3.12'",
        "numcodecs>=0.13,<0.16; python_version < '3.12'",  # the last series that zarr 2 works with
        "funlib.persistence==0.6.0; python_version < '3.12'",
        "funlib.persistence>=0.7,<0.8; python_version >= '3.12'",
        "funlib.geometry>=0.3,<0.4",
        "daisy==2.0.0",
        "waterz==0.10.1",
        "higra==0.6.13",
        "mwatershed==0.5.4",
        "connected-components-3d>=4.1,<4.2",
        "networkx>=3.6,<3.8",
        "numpy>=2.4,<2.6",
        "scipy>=1.17,<1.19",
        "scikit-image>=0.26,<0.27",
        "numba>=0.68,<0.69",  # watershed and contacts
        "tensorstore==0.1.86",  # arrays in place: zarr 2 and 3, N5, precomputed; files, web servers, buckets
        "isal>=1.9,<1.10",  # CRC-32 of blocks, six times as fast as zlib's
        "h5py>=3.16,<3.17",
        "tifffile>=2025.5,<2026.12",
        "imagecodecs>=2026.3,<2026.11",  # compressed TIFF (LZW, JPEG, zstd)
        "pydantic>=2.14,<2.15",
        "rich>=15.0,<15.1",  # tables and progress bars on terminals
        "typing_extensions>=4.16,<4.17",
        "tensorboard>=2.21,<2.22",
        "pooch>=1.9,<1.10",
        "matplotlib>=3.11,<3.12",
        "jinja2>=3.1.6,<3.2",
        "neuroglancer>=2.41,<2.42",
        "tornado>=6.6,<6.7",  # its web server, which hands out the files of a run, too
        "psutil>=7.2,<7.3",
        "threadpoolctl>=3.8,<3.9",
        "pymongo==4.20.0",  # graphs in MongoDB
        "psycopg[binary]==3.3.9",  # graphs in PostgreSQL
    ],
    extras_require={
        "cpu": ["openvino==2026.4.1"],  # predicts faster than torch does there
        "int8": ["openvino==2026.4.1", "nncf==3.4.0"],  # rounds networks to eight bits
        # meshes: marching cubes of many labels at once, simplification, Draco; skeletons: TEASAR in blocks. They need
        # nothing but numpy
        "export": ["zmesh>=1.15,<1.16", "DracoPy>=2.2,<2.3", "bioimage-cpp>=0.10,<0.11"],
        "test": [
            "zmesh>=1.15,<1.16",
            "DracoPy>=2.2,<2.3",
            "bioimage-cpp>=0.10,<0.11",
            "moto[s3]>=5.2,<5.3",  # buckets on this machine
            "yaozarrs>=0.3.4,<0.4",  # whether OME-NGFF metadata are valid
            "playwright>=1.65,<1.66",  # drives the browser of the distribution
            "flask>=3.1,<3.2",
            "flask-cors>=6.0,<6.1",
            "pytest>=9.2,<9.3",
            "pytest-timeout>=2.4,<2.5",
            "ruff>=0.17,<0.18",
            "mypy>=2.4,<2.5",
            "codespell>=2.4,<2.5",
            "setuptools>=84.2,<84.3",  # a test builds a wheel
            "openvino==2026.4.1",
            "nncf==3.4.0",
        ],
    },
)
