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
    package_data={"pipeline": ["py.typed", "viewer/templates/*.html", "engine/status/templates/*.html"]},
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
        "connected-components-3d>=4.1,<5",
        "networkx>=3.2",
        "numpy>=2.0,<3",
        "scipy>=1.14",
        "scikit-image>=0.25",
        "numba>=0.63,<1",  # watershed and contacts; numpy 2.4 needs 0.63
        "tensorstore==0.1.86",  # arrays in place: zarr 2 and 3, N5, precomputed; files, web servers, buckets
        "h5py>=3.11",
        "tifffile>=2024.8",
        "imagecodecs>=2024.9",  # compressed TIFF (LZW, JPEG, zstd)
        "pydantic>=2.11,<3",
        "rich>=14",  # tables and progress bars on terminals
        "typing_extensions>=4.4",
        "tensorboard>=2.18",
        "pooch>=1.8",
        "matplotlib>=3.9",
        "jinja2>=3.1",
        "neuroglancer>=2.40",
        "psutil>=6",
        "threadpoolctl>=3.5,<4",
        "pymongo==4.20.0",  # graphs in MongoDB
        "psycopg[binary]==3.3.9",  # graphs in PostgreSQL
    ],
    extras_require={
        "cpu": ["openvino==2026.4.1"],  # predicts faster than torch does there
        "test": [
            "moto[s3]>=5.1,<6",  # buckets on this machine
            "yaozarrs>=0.3.4,<0.4",  # whether OME-NGFF metadata are valid
            "flask>=3",
            "flask-cors>=5",
            "pytest>=8",
            "pytest-timeout>=2.3",
            "ruff>=0.9",
            "mypy>=1.13",
            "codespell>=2.4",
            "setuptools>=70.1",  # a test builds a wheel
            "openvino==2026.4.1",
        ],
    },
)
