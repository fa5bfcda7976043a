"""Skeletons are read as they are meant, in nanometres, whatever they are stored as; what is none is one clear line."""

from __future__ import annotations

import io
import json
import struct
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorstore as ts

from pipeline.errors import UserError
from pipeline.evaluation import Skeletons, open_skeletons

SWC = """# a Y of four nodes and a lone pair
1 0 10 20 30 1 -1
2 0 11.5 20 30 1 1  # behind it
5 0 11.5 22 30 1 2

4 0 11.5 20 34 1 2
7 0 0 0 0 1 -1
8 0 0 0 2.5 1 7
"""
NML = """<?xml version="1.0"?><things><parameters><scale x="4.5" y="4" z="0.04" {unit}/></parameters>
<thing id="3" name="axon"><nodes><node id="9" x="2" y="3" z="1"/><node id="4" x="4" y="3" z="1"/></nodes>
<edges><edge source="9" target="4"/></edges></thing>
<thing id="12"><nodes><node id="11" x="0" y="0" z="0"/><node id="13" x="0" y="0" z="2.5"/></nodes>
<edges><edge source="13" target="11"/></edges></thing></things>"""


def edges_of(skeletons: Skeletons) -> set[frozenset[tuple[float, ...]]]:
    """Edges as pairs of positions."""
    return {frozenset(map(tuple, skeletons.positions[edge].round(4).tolist())) for edge in skeletons.edges}


def test_swc_has_its_edges_from_child_to_parent(tmp_path: Path) -> None:
    (tmp_path / "7.swc").write_text(SWC)
    skeletons = open_skeletons(tmp_path / "7.swc")
    assert skeletons.names == ("7",)
    branch = (30.0, 20.0, 11.5)
    assert edges_of(skeletons) == {
        frozenset({(30.0, 20.0, 10.0), branch}),
        frozenset({(30.0, 22.0, 11.5), branch}),
        frozenset({(34.0, 20.0, 11.5), branch}),
        frozenset({(0.0, 0.0, 0.0), (2.5, 0.0, 0.0)}),
    }
    assert skeletons.lengths.sum() == pytest.approx(1.5 + 2 + 4 + 2.5)
    assert open_skeletons(tmp_path / "7.swc", (1000, 1000, 10)).lengths.sum() == pytest.approx(15 + 2000 + 4000 + 2500)


def test_a_folder_of_swc_is_a_skeleton_per_file(tmp_path: Path) -> None:
    for name in ("7", "31"):
        (tmp_path / f"{name}.swc").write_text(SWC)
    skeletons = open_skeletons(tmp_path)
    assert sorted(skeletons.names) == ["31", "7"]
    assert skeletons.owner.tolist() == [0] * 6 + [1] * 6
    assert (skeletons.owner[skeletons.edges[:, 0]] == skeletons.owner[skeletons.edges[:, 1]]).all()


@pytest.mark.parametrize(("unit", "factor"), [("", 1), ('unit="nanometer"', 1), ('unit="micrometer"', 1000)])
def test_nml_counts_voxels_of_its_scale(tmp_path: Path, unit: str, factor: float) -> None:
    (tmp_path / "a.nml").write_text(NML.format(unit=unit))
    skeletons = open_skeletons(tmp_path / "a.nml")
    assert skeletons.names == ("3", "12")
    assert edges_of(skeletons) == {
        frozenset({(0.04 * factor, 12.0 * factor, 9.0 * factor), (0.04 * factor, 12.0 * factor, 18.0 * factor)}),
        frozenset({(0.0, 0.0, 0.0), (0.1 * factor, 0.0, 0.0)}),
    }


def expected() -> Skeletons:
    positions = np.array([[0, 0, 0], [0, 0, 10], [5, 5, 5], [5, 5, 15], [5, 9, 15]], float)
    return Skeletons.of(("10", "20"), np.array([0, 0, 1, 1, 1]), positions, np.array([[0, 1], [2, 3], [3, 4]]))


def assert_same(skeletons: Skeletons, lengths: list[float] | None = None) -> None:
    other = expected()
    assert skeletons.names == other.names
    for name in ("owner", "positions", "edges"):
        np.testing.assert_array_equal(getattr(skeletons, name), getattr(other, name))
    np.testing.assert_allclose(skeletons.lengths, other.lengths if lengths is None else lengths)


def test_npz_of_plain_arrays_and_of_em_erl(tmp_path: Path) -> None:
    own = expected()
    np.savez(tmp_path / "own.npz", positions=own.positions, skeleton=[10, 10, 20, 20, 20], edges=own.edges)
    assert_same(open_skeletons(tmp_path / "own.npz"))
    flat: dict[str, Any] = {
        "skeleton_id": np.array([10, 20]),
        "skeleton_len": np.array([10.0, 30.0]),
        "node_skeleton_index": own.owner.astype(np.uint32),
        "node_coords_zyx": own.positions.astype(np.uint32),
        "edge_u": own.edges[:, 0].astype(np.uint32),
        "edge_v": own.edges[:, 1].astype(np.uint32),
        "edge_ptr": np.array([0, 1, 3], np.uint64),
    }
    np.savez_compressed(tmp_path / "flat.npz", **flat, edge_len=np.array([10, 12, 18], np.float32))
    assert_same(open_skeletons(tmp_path / "flat.npz"), [10, 12, 18])
    rows = [np.column_stack([own.edges[:1], [10.0]]), np.column_stack([own.edges[1:], [12.0, 18.0]])]
    nodes = np.column_stack([own.owner, own.positions]).astype(np.uint32)
    np.savez_compressed(tmp_path / "early.npz", np.array([10, 20]), np.array([10.0, 30.0]), nodes, *rows)
    assert_same(open_skeletons(tmp_path / "early.npz"), [10, 12, 18])


@pytest.mark.parametrize("sharded", [False, True])
def test_precomputed_skeletons_have_a_transform_and_shards_or_files(tmp_path: Path, sharded: bool) -> None:
    folder = tmp_path / "segmentation" / "skeletons"
    folder.mkdir(parents=True)
    sharding = {
        "@type": "neuroglancer_uint64_sharded_v1",
        "preshift_bits": 0,
        "hash": "murmurhash3_x86_128",
        "minishard_bits": 1,
        "shard_bits": 1,
        "minishard_index_encoding": "gzip",
        "data_encoding": "gzip",
    }
    transform = [2, 0, 0, 1, 0, 2, 0, 0, 0, 0, 4, 0]
    info = {"@type": "neuroglancer_skeletons", "transform": transform, **({"sharding": sharding} if sharded else {})}
    (folder / "info").write_text(json.dumps(info))
    (tmp_path / "segmentation" / "info").write_text(
        json.dumps({"@type": "neuroglancer_multiscale_volume", "skeletons": "skeletons"})
    )
    contents = {}
    for segment in (5, 2**50, 77):
        vertices = np.array([[0, 1, 2], [0, 1, segment % 100]], "<f4")  # x, y, z
        contents[segment] = struct.pack("<II", 2, 1) + vertices.tobytes() + struct.pack("<II", 0, 1) + bytes(8)
    if sharded:
        base = {"driver": "file", "path": f"{folder}/"}
        spec = {"driver": "neuroglancer_uint64_sharded", "metadata": sharding, "base": base}
        store = ts.KvStore.open(spec).result()
        for segment, content in contents.items():
            store.write(segment.to_bytes(8, "big"), content).result()
    else:
        for segment, content in contents.items():
            (folder / str(segment)).write_bytes(content)
    for place in (folder, tmp_path / "segmentation"):
        skeletons = open_skeletons(place)
        assert skeletons.names == ("5", "77", str(2**50))
        assert skeletons.positions[:2].tolist() == [[8, 2, 1], [20, 2, 1]]
        assert skeletons.lengths.tolist() == [12, 4 * 75, 4 * 22]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.swc", "1 0 1 2 3 1 -1\n2 0 1 2 4 1\n", "a.swc: line 2 has no 7 numbers"),
        ("a.swc", "1 0 1 2 3 1 -1\n2 0 1 2 4 1 9\n", "node 2 has the parent 9, which is not there"),
        ("a.swc", "1 0 1 2 3 1 -1\n1 0 1 2 4 1 1\n", "two nodes have the number 1"),
        ("a.swc", "1 0 1 2 3 1 -1\n2 0 1 2 nan 1 1\n", "no finite number"),
        ("a.swc", "1 0 1 2 3 1 -1\n2 0 1 2 1e300 1 1\n", r"lies farther away than 1e\+15 nm"),
        ("a.swc", "1 0 1 2 3 1 2\n2 0 1 2 4 1 1\n", "node [12] is its own ancestor"),
        ("a.swc", "1 0 1 2 3 1 1\n", "node 1 is its own ancestor"),
        ("a.swc", "1 0 1 2 3 1 -1\n2 0 1 2 3 1 1\n", "no edge of the skeletons has a length"),
        ("a.swc", "# nothing\n", "no skeleton with an edge"),
        ("a.nml", "<things><thing id='1'/></things>", "says no scale"),
        ("a.nml", "<things>", "no XML"),
        ("a.nml", NML.format(unit='unit="parsec"'), "'parsec', which is no length"),
        ("a.nml", NML.format(unit="").replace('target="4"', 'target="11"'), "thing 3 names node 11"),
        ("a.nml", NML.format(unit="").replace('y="3"', ""), "KeyError"),
        ("a.npz", "PK no zip", "a.npz"),
        ("a.txt", "1 0 1 2 3 1 -1", "a.txt: is none of these; expected an SWC file"),
    ],
)
def test_what_is_no_skeleton_is_one_line(tmp_path: Path, name: str, content: str, message: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(UserError, match=message):
        open_skeletons(tmp_path / name)


def test_missing_and_empty_places_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"gone\.swc: there is no such file or folder"):
        open_skeletons(tmp_path / "gone.swc")
    with pytest.raises(UserError, match="the folder holds no skeletons"):
        open_skeletons(tmp_path)
    np.savez(tmp_path / "a.npz", positions=np.zeros((2, 3)), skeleton=[1, 2], edges=[[0, 1]])
    with pytest.raises(UserError, match="an edge joins two skeletons"):
        open_skeletons(tmp_path / "a.npz")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"positions": np.zeros((3, 2))}, r"positions has the shape \(3, 2\)"),
        ({"positions": np.ones((2, 3)) * 1j}, "positions has .* the type complex128"),
        ({"edges": np.array([[0, 1.7]])}, "edges has .* the type float64, not 2 whole numbers a row"),
        ({"edges": np.array([0, 1])}, r"edges has the shape \(2,\)"),
    ],
)
def test_arrays_of_other_shapes_and_kinds_are_not_made_to_fit(
    tmp_path: Path, changes: dict[str, np.ndarray], message: str
) -> None:
    arrays: dict[str, Any] = {"positions": np.eye(2, 3), "skeleton": np.array([1, 1]), "edges": np.array([[0, 1]])}
    np.savez(tmp_path / "a.npz", **{**arrays, **changes})
    with pytest.raises(UserError, match=message):
        open_skeletons(tmp_path / "a.npz")


def test_an_npz_that_claims_more_than_any_memory_is_one_line(tmp_path: Path) -> None:
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f8", "fortran_order": False, "shape": (10**14, 3)})
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as file:
        file.writestr("positions.npy", header.getvalue())
    with pytest.raises(UserError, match=r"a\.npz: cannot be read as npz: Unable to allocate"):
        open_skeletons(tmp_path / "a.npz")


def test_an_npz_that_unpacks_to_more_than_the_memory_is_one_line(tmp_path: Path) -> None:
    """Its header may even be small: what is unpacked is what counts."""
    with zipfile.ZipFile(tmp_path / "a.npz", "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("positions.npy", bytes(1000))
        file.getinfo("positions.npy").file_size = 10**13
    with pytest.raises(UserError, match=r"a\.npz: its arrays take 10.0 TB when they are unpacked"):
        open_skeletons(tmp_path / "a.npz")


@pytest.mark.parametrize("transform", [[1, 2], "turned", None])
def test_a_transform_that_is_none_is_one_line(tmp_path: Path, transform: object) -> None:
    (tmp_path / "info").write_text(json.dumps({"@type": "neuroglancer_skeletons", "transform": transform}))
    with pytest.raises(UserError, match="info: is damaged"):
        open_skeletons(tmp_path)
