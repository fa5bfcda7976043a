"""What cloud-volume reads of exports: every voxel of every level, meshes and skeletons.

It pins other packages than ours: `EMDISTILL_TEST_CLOUDVOLUME` names a Python that has it.
"""

from __future__ import annotations

import json
import os
import struct
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorstore as ts
from precomputed_reader import manifest_of, read_mesh
from voronoi_run import make_run, store_affinities, stored

from pipeline.api import agglomerate, extract_fragments, segment
from pipeline.engine.chain import run_stages
from pipeline.run import Run
from pipeline.stages.export.targets import ExportOptions, export_stages
from pipeline.volumes.pyramids import downsample

THRESHOLD = 0.45
PYTHON = os.environ.get("EMDISTILL_TEST_CLOUDVOLUME")
pytestmark = pytest.mark.skipif(PYTHON is None, reason="EMDISTILL_TEST_CLOUDVOLUME names no Python with cloud-volume")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Run:
    run = make_run(tmp_path_factory.mktemp("run"), pyramid={"smallest": 6}, segment={"thresholds": [THRESHOLD]})
    store_affinities(run)
    assert extract_fragments(run) and agglomerate(run) and segment(run)
    return run


def export(run: Run, to: Path, target: Any, **options: Any) -> None:
    chosen = ExportOptions(target, str(to), THRESHOLD, **options)
    assert run_stages(run, export_stages(run, chosen), False)


def read_by_cloud_volume(program: str, *arguments: str) -> Any:
    """What a program prints last, as JSON."""
    begin = "import json, sys\nimport numpy as np\nfrom cloudvolume import CloudVolume\n"
    done = subprocess.run([str(PYTHON), "-c", begin + program, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


VOLUMES = """
said = {}
for place in sys.argv[2:]:
    mips = CloudVolume("file://" + place, progress=False).available_mips
    for mip in mips:
        volume = CloudVolume("file://" + place, mip=mip, progress=False)
        np.save(f"{sys.argv[1]}/{place.rpartition('/')[2]}_{mip}.npy", np.asarray(volume[:])[..., 0].transpose())
        said[f"{place.rpartition('/')[2]}_{mip}"] = [volume.resolution.tolist(), volume.voxel_offset.tolist()]
print(json.dumps(said))
"""


def test_every_voxel_of_every_level_is_read(tmp_path: Path, finished: Run) -> None:
    export(finished, tmp_path / "a", "precomputed")
    export(finished, tmp_path / "b", "pychunkedgraph")
    places = [str(tmp_path / "a" / "raw"), str(tmp_path / "a" / "segmentation"), str(tmp_path / "b" / "supervoxels")]
    said = read_by_cloud_volume(VOLUMES, str(tmp_path), *places)
    expected = {
        "raw": stored(finished, "raw")[1:, 2:, 3:],
        "segmentation": stored(finished, f"segmentation/{THRESHOLD}"),
        "supervoxels": ts.open(
            {"driver": "neuroglancer_precomputed", "kvstore": f"file://{tmp_path}/b/supervoxels/"}, open=True
        )
        .result()[..., 0]
        .read()
        .result()
        .transpose(),
    }
    for name, finest in expected.items():
        level = finest
        for mip, step in enumerate([None, (1, 2, 2), (1, 2, 2), (2, 2, 2)]):
            level = level if step is None else downsample(level, step, "mean" if name == "raw" else "majority")
            np.testing.assert_array_equal(np.load(tmp_path / f"{name}_{mip}.npy"), level, err_msg=f"{name}, mip {mip}")
        assert said[f"{name}_0"] == [[8, 8, 40], [3, 2, 1]]
        assert f"{name}_4" not in said, "these are all levels"


SURFACES = """
volume, ids = CloudVolume("file://" + sys.argv[1], progress=False), json.loads(sys.argv[2])
said = {"meshes": {}, "skeletons": {}}
for number, mesh in volume.mesh.get(ids).items():
    said["meshes"][number] = [mesh.vertices.min(axis=0).tolist(), mesh.vertices.max(axis=0).tolist(), len(mesh.faces)]
for skeleton in volume.skeleton.get(ids):
    said["skeletons"][skeleton.id] = [skeleton.vertices.tolist(), skeleton.edges.tolist(), skeleton.radius.tolist()]
print(json.dumps(said))
"""


def test_meshes_and_skeletons_are_read(tmp_path: Path, finished: Run) -> None:
    chosen: dict[str, Any] = {"arrays": ("segmentation",), "meshes": True, "skeletons": True, "minimum_size": 50}
    export(finished, tmp_path, "precomputed", **chosen)
    volume = stored(finished, f"segmentation/{THRESHOLD}")
    ids, sizes = np.unique(volume[volume > 0], return_counts=True)
    numbers = ids[sizes >= 50].tolist()
    said = read_by_cloud_volume(SURFACES, str(tmp_path / "segmentation"), json.dumps(numbers))
    for number in numbers:
        ours = read_mesh(tmp_path / "segmentation" / "mesh", number)
        low, high, faces = said["meshes"][str(number)]
        np.testing.assert_allclose(low, ours[0].min(axis=0), atol=0.2)
        np.testing.assert_allclose(high, ours[0].max(axis=0), atol=0.2)
        assert faces == len(ours[1])
        content = manifest_of(tmp_path / "segmentation" / "skeletons", number)
        assert content is not None
        count, edges = struct.unpack_from("<II", content)
        vertices, links, radii = said["skeletons"][str(number)]
        np.testing.assert_array_equal(vertices, np.frombuffer(content, "<f4", 3 * count, 8).reshape(-1, 3))
        np.testing.assert_array_equal(radii, np.frombuffer(content, "<f4", count, 8 + 12 * count + 8 * edges))
        stored_links = np.frombuffer(content, "<u4", 2 * edges, 8 + 12 * count).reshape(-1, 2).tolist()
        assert {frozenset(link) for link in links} == {frozenset(link) for link in stored_links}
