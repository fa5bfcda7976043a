"""Meshes of bodies that cross faces and corners of blocks: closed, without cracks, and where the voxels are."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from funlib.geometry import Coordinate
from precomputed_reader import decoded, edges_of, euler_number, manifest_of, read_mesh, volume_of
from precomputed_reader import joined as joined_by_reader
from toy_tasks import wait_until
from voronoi_run import make_run, store_affinities, stored

from pipeline.api import agglomerate, extract_fragments, segment
from pipeline.engine.chain import run_stages
from pipeline.errors import UserError
from pipeline.run import Run
from pipeline.stages.export.meshes import MeshPieces
from pipeline.stages.export.multiresolution import mesh_info, packed_mesh
from pipeline.stages.export.piece_files import Piece, PieceFile
from pipeline.stages.export.surfaces import Surface, cubes_of, joined, surfaces
from pipeline.stages.export.targets import ExportOptions, export_stages
from pipeline.stages.fragments import FragmentsTask
from pipeline.volumes import Box, open_volume
from pipeline.volumes.sharded import Sharding

SHAPE = (60, 70, 80)
THRESHOLD = 0.45
SCRIPT = Path(__file__).parents[3] / "workflows" / "08_export.py"


def bodies() -> np.ndarray:
    """A ball (7), a torus around it (8), a box (2**40 + 1), and one at three faces of the volume (9)."""
    z, y, x = np.meshgrid(*(np.arange(extent) + 0.5 for extent in SHAPE), indexing="ij")
    around = np.hypot(np.hypot(y - 35, x - 40) - 25, z - 30)
    ids = np.zeros(SHAPE, np.uint64)
    ids[np.sqrt((z - 30) ** 2 + (y - 35) ** 2 + (x - 40) ** 2) < 14] = 7
    ids[around < 6] = 8
    ids[40:57, 3:31, 52:77] = 2**40 + 1
    ids[:12, :10, :8] = 9
    return ids


EXPECTED = {
    7: (4 / 3 * np.pi * 14**3, 2),
    8: (2 * np.pi**2 * 25 * 36, 0),
    2**40 + 1: (17 * 28 * 25, 2),
    9: (12 * 10 * 8, 2),
}
"""Voxels and Euler number."""


def in_blocks(ids: np.ndarray, block: tuple[int, int, int], folder: Path) -> Iterator[tuple[int, list[Surface]]]:
    """The pieces of every body, through files, as blocks make them."""
    whole = Box.of_shape(ids.shape)
    padded = np.pad(ids, 1)
    files = []
    for number, box in enumerate(whole.split(block)):
        around = cubes_of(box, whole)
        part = Box(around.begin + Coordinate(1, 1, 1), around.end + Coordinate(1, 1, 1))
        files.append(PieceFile(folder / f"{number}", (3, 3)))
        found = surfaces(padded[part.slices], around.begin)
        files[-1].write({body: Piece(*surface) for body, surface in found.items()})
    opened = [file.open() for file in files]
    for body in np.unique(ids[ids > 0]).tolist():
        pieces = [file.get(body) for file in opened]
        yield body, [Surface(*piece) for piece in pieces if piece is not None]


@pytest.mark.parametrize("block", [(16, 32, 24), (30, 35, 40), (7, 64, 80), (60, 70, 80)])
def test_bodies_across_blocks_have_one_closed_mesh_of_the_right_volume(tmp_path: Path, block: Any) -> None:
    ids = bodies()
    for body, pieces in in_blocks(ids, block, tmp_path):
        surface = joined(pieces)
        mesh = surface.vertices * 0.5, surface.faces
        volume, euler = EXPECTED[body]
        assert set(edges_of(mesh)) == {2}, "every edge has two faces: no crack, no hole"
        assert euler_number(mesh) == euler
        assert volume_of(mesh) == pytest.approx((ids == body).sum(), rel=0.05), "outwards, and at the voxels"
        assert volume_of(mesh) == pytest.approx(volume, rel=0.06)
        z, y, x = np.nonzero(ids == body)
        np.testing.assert_array_equal(mesh[0].min(axis=0), [x.min(), y.min(), z.min()])
        np.testing.assert_array_equal(mesh[0].max(axis=0), [x.max() + 1, y.max() + 1, z.max() + 1])
        assert body not in (7, 8) or (len(pieces) > 1) == (block != SHAPE)


def test_blocks_change_nothing(tmp_path: Path) -> None:
    def triangles(block: Any, folder: Path) -> dict[int, set[tuple[tuple[int, ...], ...]]]:
        found = {}
        for body, pieces in in_blocks(bodies(), block, folder):
            surface = joined(pieces)
            corners = surface.vertices[surface.faces].tolist()
            found[body] = {tuple(sorted(tuple(vertex) for vertex in triangle)) for triangle in corners}
        return found

    assert triangles((16, 32, 24), tmp_path / "a") == triangles(SHAPE, tmp_path / "b")


@pytest.mark.parametrize("finest", [256, 40, 20])
def test_packed_meshes_are_whole_at_every_level_of_detail(
    tmp_path: Path, finest: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.stages.export.multiresolution.FINEST", finest)
    ids = bodies()
    size, offset = (40.0, 8.5, 4.0), (400.0, 17.0, 8.0)
    info = mesh_info(size, offset)
    voxel = float(np.prod(size))
    for body, pieces in in_blocks(ids, (16, 32, 24), tmp_path):
        mesh = packed_mesh(joined(pieces))
        z, y, x = np.nonzero(ids == body)
        corner = [offset[2] + x.min() * size[2], offset[1] + y.min() * size[1], offset[0] + z.min() * size[0]]
        levels = np.frombuffer(mesh.manifest, "<u4", 1, 24).item()
        assert levels == 1 + max(0, int(np.ceil(np.log2(max(np.ptp(a) + 1 for a in (x, y, z)) / finest))))
        for level in range(levels):
            read = decoded(info, mesh.manifest, b"before" + mesh.fragments, level)
            assert volume_of(read) == pytest.approx(EXPECTED[body][0] * voxel, rel=0.06 if level == 0 else 0.3)
            np.testing.assert_allclose(read[0].min(axis=0), corner, atol=0.1 if level == 0 else 80)
            if level == 0:
                whole = joined_by_reader(read, 1e-4)
                assert set(edges_of(whole)) == {2} and euler_number(whole) == EXPECTED[body][1]


@pytest.mark.parametrize("bits", [0, 3, 5])
def test_sharded_files_are_read_by_tensorstore(tmp_path: Path, bits: int) -> None:
    rng = np.random.default_rng(2)
    ids = np.unique(rng.integers(0, 2**63, 500, dtype=np.uint64))
    sharding = Sharding(bits)
    (tmp_path / "info").write_text(json.dumps({"sharding": sharding.document}))
    values = {segment: (b"x" * int(segment % 7), f"value {segment}".encode()) for segment in ids.tolist()}
    shards = sharding.shards_of(ids)
    for shard in range(2**bits):
        members = {segment: values[segment] for segment in ids[shards == shard].tolist()}
        (tmp_path / sharding.file_name(shard)).write_bytes(sharding.file_content(members))
    assert all(manifest_of(tmp_path, segment) == value for segment, (_, value) in values.items())
    assert manifest_of(tmp_path, int(ids[0]) + 1) is None


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Run:
    run = make_run(tmp_path_factory.mktemp("run"), segment={"thresholds": [THRESHOLD]})
    store_affinities(run)
    assert extract_fragments(run) and agglomerate(run) and segment(run)
    return run


def export(run: Run, to: Path, **options: Any) -> None:
    chosen = ExportOptions("precomputed", str(to), THRESHOLD, ("segmentation",), **{"minimum_size": 50, **options})
    assert run_stages(run, export_stages(run, chosen), False)


def test_every_segment_above_a_size_has_the_mesh_of_its_voxels(tmp_path: Path, finished: Run) -> None:
    export(finished, tmp_path, meshes=True)
    folder = tmp_path / "segmentation" / "mesh"
    assert json.loads((tmp_path / "segmentation" / "info").read_text())["mesh"] == "mesh"
    volume = stored(finished, f"segmentation/{THRESHOLD}")
    ids, sizes = np.unique(volume[volume > 0], return_counts=True)
    assert sizes.min() < 50 and len(ids[sizes >= 50]) > 3
    for number, size in zip(ids.tolist(), sizes.tolist(), strict=True):
        if size < 50:
            assert manifest_of(folder, number) is None
            continue
        mesh = read_mesh(folder, number)
        alone = surfaces(np.pad(np.where(volume == number, volume, 0), 1), (-1, -1, -1))[number]
        expected = volume_of((alone.vertices * 0.5 * (8, 8, 40), alone.faces))
        centre = np.array([24, 16, 40])  # where the region begins
        assert volume_of((mesh[0] - centre, mesh[1])) == pytest.approx(expected, rel=1e-3)
        low = alone.vertices.min(axis=0) * (4, 4, 20) + centre
        np.testing.assert_allclose(mesh[0].min(axis=0), low, atol=0.1)


def test_meshes_beside_an_empty_block_are_closed(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", segment={"thresholds": [THRESHOLD]})
    raw = open_volume(run.volume, "raw", "r+")
    intensities = raw.read(raw.box)
    intensities[1:5, 2:18, 3:19] = 7
    raw.write(raw.box, intensities)
    store_affinities(run)
    assert extract_fragments(run) and agglomerate(run) and segment(run)
    volume = stored(run, f"segmentation/{THRESHOLD}")
    assert FragmentsTask(run).empty.sum() == 1 and not volume[:4, :16, :16].any()
    export(run, tmp_path / "out", meshes=True, skeletons=True)
    ids, sizes = np.unique(volume[volume > 0], return_counts=True)
    touching = np.unique(volume[:5, :17, :17])
    assert len(touching) > 2
    for number in ids[sizes >= 50].tolist():
        mesh = joined_by_reader(read_mesh(tmp_path / "out" / "segmentation" / "mesh", number), 1e-3)
        assert set(edges_of(mesh).tolist()) <= {2, 4}, "no face is missing, two may touch along an edge"


def test_killed_while_meshing_the_same_command_gives_the_same_files(tmp_path: Path, finished: Run) -> None:
    export(finished, tmp_path / "expected", meshes=True)
    shutil.copytree(finished.directory, tmp_path / "run")
    for folder in (tmp_path / "run" / "tracking").glob("mesh_*"):
        shutil.rmtree(folder) if folder.is_dir() else folder.unlink()
    command = [sys.executable, str(SCRIPT), str(tmp_path / "run" / "config.json"), "--target", "precomputed"]
    command += ["--threshold", str(THRESHOLD), "--arrays", "segmentation", "--meshes", "--minimum-size", "50"]
    command += ["--to", str(tmp_path / "out"), "--set", "cluster.executor=local"]
    killed = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    pieces = "mesh_pieces_*/*/pieces/*/*.pieces"  # no folder on the way goes away meanwhile
    wait_until(lambda: any((tmp_path / "run" / "tracking").glob(pieces)))
    killed.kill()
    killed.wait()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    files = {path.relative_to(tmp_path / "expected"): path for path in (tmp_path / "expected").rglob("*")}
    assert {name for name, path in files.items() if path.is_file()} == {
        path.relative_to(tmp_path / "out") for path in (tmp_path / "out").rglob("*") if path.is_file()
    }
    for name, path in files.items():
        assert not path.is_file() or path.read_bytes() == (tmp_path / "out" / name).read_bytes(), name


def test_options_that_do_not_fit_are_refused(tmp_path: Path, finished: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="belong to --target precomputed"):
        export_stages(finished, ExportOptions("ngff", str(tmp_path), THRESHOLD, meshes=True))
    with pytest.raises(UserError, match="0 or more"):
        export_stages(finished, ExportOptions("precomputed", str(tmp_path), THRESHOLD, meshes=True, minimum_size=-5))
    with pytest.raises(UserError, match="from 0 to 1"):
        export_stages(finished, ExportOptions("ngff", str(tmp_path), 45))
    with pytest.raises(UserError, match="add it to --arrays"):
        export_stages(finished, ExportOptions("precomputed", str(tmp_path), THRESHOLD, ("raw",), meshes=True))
    monkeypatch.setitem(sys.modules, "zmesh", None)
    with pytest.raises(UserError, match=r"emdistill\[export\]"):
        MeshPieces(finished, THRESHOLD, 50).check()
