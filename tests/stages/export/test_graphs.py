"""The graph in the formats of proofreading tools, read back by code that shares nothing with what wrote it."""

from __future__ import annotations

import argparse
import json
import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import imagecodecs
import networkx as nx
import numpy as np
import pytest
import tensorstore as ts
import yaozarrs
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from voronoi_run import make_run, store_affinities, stored

from pipeline.api import agglomerate, extract_fragments, segment
from pipeline.commands import export as export_command
from pipeline.engine.chain import run_stages
from pipeline.errors import UserError
from pipeline.rag import open_rag
from pipeline.run import Run
from pipeline.stages.auditing import audit
from pipeline.stages.export.targets import ExportOptions, export_run, export_stages

THRESHOLD = 0.45
BLOCK = (4, 16, 16)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Run:
    run = make_run(tmp_path_factory.mktemp("run"), segment={"thresholds": [THRESHOLD]})
    store_affinities(run)
    assert extract_fragments(run) and agglomerate(run) and segment(run)
    return run


def export(run: Run, to: Path, target: Any) -> None:
    assert run_stages(run, export_stages(run, ExportOptions(target, str(to), THRESHOLD)), False)


def graph_of(run: Run) -> Any:
    with open_rag(run.config.rag, run.directory) as store:
        return store.to_networkx()


def test_webknossos_maps_every_voxel_to_its_segment_with_the_edges_that_joined_it(
    tmp_path: Path, finished: Run
) -> None:
    export(finished, tmp_path, "webknossos")
    for name in ("raw", "fragments"):
        yaozarrs.validate_zarr_store(str(tmp_path / name))
    spec = {"driver": "zarr3", "kvstore": f"file://{tmp_path}/fragments/s0/"}
    layer = ts.open(spec, open=True, read=True).result().read().result()
    with h5py.File(tmp_path / "fragments" / "agglomerates" / f"agglomerate_view_{THRESHOLD}.hdf5") as file:
        arrays = {name: dataset[:] for name, dataset in file.items()}
    mapped = arrays["segment_ids"][arrays["segment_to_agglomerate"][layer]]
    np.testing.assert_array_equal(mapped, stored(finished, f"segmentation/{THRESHOLD}"))
    np.testing.assert_array_equal(arrays["fragment_ids"][layer], stored(finished, "fragments"))
    graph, count = graph_of(finished), len(arrays["segment_ids"]) - 1
    assert len(arrays["agglomerate_to_segments_offsets"]) == count + 2 == len(arrays["agglomerate_to_edges_offsets"])
    edges_seen = 0
    for number in range(1, count + 1):  # as WEBKNOSSOS reads an agglomerate
        begin, end = arrays["agglomerate_to_segments_offsets"][number : number + 2].tolist()
        members = arrays["agglomerate_to_segments"][begin:end]
        assert (arrays["segment_to_agglomerate"][members] == number).all() and (np.diff(members.astype(int)) > 0).all()
        first, last = arrays["agglomerate_to_edges_offsets"][number : number + 2].tolist()
        tree = nx.Graph()
        tree.add_nodes_from(range(len(members)))
        for (a, b), affinity in zip(
            arrays["agglomerate_to_edges"][first:last].tolist(),
            arrays["agglomerate_to_affinities"][first:last].tolist(),
            strict=True,
        ):
            edge = graph.edges[tuple(int(arrays["fragment_ids"][members[end]]) for end in (a, b))]
            assert edge["score"] <= THRESHOLD and affinity == pytest.approx(edge["affinity"], abs=1e-6)
            tree.add_edge(a, b)
        assert nx.is_connected(tree)
        edges_seen += last - first
        for member, position in zip(
            members.tolist(), arrays["agglomerate_to_positions"][begin:end].tolist(), strict=True
        ):
            z, y, x = np.nonzero(layer == member)
            np.testing.assert_allclose(position, [np.floor(a.mean() + 0.5) for a in (x, y, z)], atol=1)
    assert edges_seen == sum(edge["score"] <= THRESHOLD for _, _, edge in graph.edges(data=True)) > 5


def test_webknossos_gets_a_file_for_every_threshold_beside_the_same_fragments(tmp_path: Path, finished: Run) -> None:
    def written() -> dict[Path, int]:
        return {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()}

    assert export_run(finished, ExportOptions("webknossos", str(tmp_path), THRESHOLD))
    before = written()
    assert export_run(finished, ExportOptions("webknossos", str(tmp_path), 0.3))
    added = tmp_path / "fragments" / "agglomerates" / "agglomerate_view_0.3.hdf5"
    assert {path for path, _ in written().items() ^ before.items()} == {added}
    spec = {"driver": "zarr3", "kvstore": f"file://{tmp_path}/fragments/s0/"}
    layer = ts.open(spec, open=True, read=True).result().read().result()
    with h5py.File(added) as file:
        np.testing.assert_array_equal(file["fragment_ids"][:][layer], stored(finished, "fragments"))
    assert all(found.sound for found in audit(finished))
    next(path for path in (tmp_path / "fragments" / "s0" / "c").rglob("*") if path.is_file()).unlink()
    assert not all(found.sound for found in audit(finished))


def test_the_command_says_what_to_do_in_webknossos(
    tmp_path: Path, finished: Run, caplog: pytest.LogCaptureFixture
) -> None:
    parser = argparse.ArgumentParser()
    export_command.add_arguments(parser)
    options = parser.parse_args(["--target", "webknossos", "--to", str(tmp_path), "--threshold", str(THRESHOLD)])
    options.dry_run = False
    caplog.set_level(logging.INFO)
    assert export_command.work(finished, options) == 0
    assert caplog.messages[-1].startswith(f"next: copy or link {tmp_path} to binaryData/")
    headings = (Path(__file__).parents[3] / "docs" / "RESULTS.md").read_text().splitlines()
    assert "docs/RESULTS.md, WEBKNOSSOS" in caplog.messages[-1] and "## WEBKNOSSOS" in headings


def messages() -> dict[str, Any]:
    """PyChunkedGraph's messages, from its public description, for Google's own reader."""
    file = descriptor_pb2.FileDescriptorProto(name="chunked.proto", package="test", syntax="proto3")
    kinds = descriptor_pb2.FieldDescriptorProto

    def add(name: str, fields: list[tuple[str, int, Any, Any, str]]) -> None:
        described = file.message_type.add(name=name)
        for field, number, label, kind, of in fields:
            described.field.add(name=field, number=number, label=label, type=kind, type_name=of or None)

    one, many = kinds.LABEL_OPTIONAL, kinds.LABEL_REPEATED
    columns = ["node_ids1", "node_ids2", "affinities", "areas"]
    add("EdgesMsg", [(name, number + 1, one, kinds.TYPE_BYTES, "") for number, name in enumerate(columns)])
    parts = ["in_chunk", "cross_chunk", "between_chunk"]
    edges = ".test.EdgesMsg"
    add("ChunkEdgesMsg", [(name, number + 1, one, kinds.TYPE_MESSAGE, edges) for number, name in enumerate(parts)])
    add("ChunkComponentsMsg", [("components", 1, many, kinds.TYPE_UINT64, "")])
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    names = ("ChunkEdgesMsg", "ChunkComponentsMsg")
    return {name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"test.{name}")) for name in names}


def test_pychunkedgraph_gets_every_edge_in_its_chunks_and_the_components(tmp_path: Path, finished: Run) -> None:
    export(finished, tmp_path, "pychunkedgraph")
    spec = {"driver": "neuroglancer_precomputed", "kvstore": f"file://{tmp_path}/supervoxels/"}
    layer = ts.open(spec, open=True, read=True).result()[..., 0].read().result().transpose()
    fragments, segments = stored(finished, "fragments"), stored(finished, f"segmentation/{THRESHOLD}")
    pairs = np.unique(np.stack([layer.ravel(), fragments.ravel(), segments.ravel()]), axis=1).T
    fragment_of = {int(s): int(f) for s, f, _ in pairs if s}
    segment_of = {int(s): int(g) for s, _, g in pairs if s}
    assert len(fragment_of) == len({*fragment_of.values()}) == (pairs[:, 0] > 0).sum(), "one to one"
    config = json.loads((tmp_path / "ingest.json").read_text())["graph_config"]
    assert config["CHUNK_SIZE"] == [16, 16, 4] and config["LAYER_ID_BITS"] == 8
    bits, graph, known = config["SPATIAL_BITS"], graph_of(finished), messages()
    inside: set[frozenset[int]] = set()
    between: list[frozenset[int]] = []
    grouped: set[int] = set()
    for file in sorted((tmp_path / "edges").iterdir()):
        x, y, z = map(int, file.name.removesuffix(".proto.zst").split("_")[1:])
        chunk = layer[z * 4 : (z + 1) * 4, y * 16 : (y + 1) * 16, x * 16 : (x + 1) * 16]
        own = set(np.unique(chunk[chunk > 0]).tolist())
        assert {s >> 56 for s in own} == {1}
        assert {(s >> (56 - bits)) % 2**bits for s in own} == {x}
        assert {(s >> (56 - 3 * bits)) % 2**bits for s in own} == {z}
        message = known["ChunkEdgesMsg"].FromString(imagecodecs.zstd_decode(file.read_bytes()))
        assert not message.cross_chunk.node_ids1
        for name in ("in_chunk", "between_chunk"):
            part = getattr(message, name)
            first, second = (np.frombuffer(ids, "<u8").tolist() for ids in (part.node_ids1, part.node_ids2))
            areas, affinities = np.frombuffer(part.areas, "<u8"), np.frombuffer(part.affinities, "<f4")
            for a, b, area, affinity in zip(first, second, areas, affinities, strict=True):
                assert a in own and (b in own) == (name == "in_chunk")
                edge = graph.edges[fragment_of[a], fragment_of[b]]
                assert edge["count"] == area and edge["affinity"] == pytest.approx(affinity, abs=1e-6)
                (inside.add if name == "in_chunk" else between.append)(frozenset((a, b)))
        content = (tmp_path / "components" / f"components_{x}_{y}_{z}.proto").read_bytes()
        listed, place = list(known["ChunkComponentsMsg"].FromString(content).components), 0
        mapping: dict[int, int] = {}
        while place < len(listed):
            members = listed[place + 1 : place + 1 + listed[place]]
            assert len({segment_of[member] for member in members}) == 1
            mapping |= dict.fromkeys(members, place)
            place += 1 + listed[place]
        assert own <= set(mapping), "every supervoxel of the chunk has a component"
        assert len({mapping[s] for s in own}) == len({segment_of[s] for s in own})
        grouped |= own
    assert grouped == set(fragment_of)
    assert all(between.count(pair) == 2 for pair in between), "an edge between two chunks stands in both"
    assert len(inside) + len(set(between)) == graph.number_of_edges()


def test_a_chunked_graph_at_another_threshold_takes_the_place_only_if_the_user_says_so(
    tmp_path: Path, finished: Run
) -> None:
    def files(place: Path) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in sorted(place.rglob("*.proto*"))}

    place = tmp_path / "out"
    former, other = (ExportOptions("pychunkedgraph", str(place), each) for each in (THRESHOLD, 0.05))
    assert export_run(finished, former)
    before = files(place)
    with pytest.raises(UserError, match=r"out holds threshold 0\.45 of this run; name another place for 0\.05,"):
        export_run(finished, other)
    assert files(place) == before
    assert export_run(finished, other, overwrite=True) and export_run(finished, other), "done, and goes on"
    assert export_run(finished, replace(other, to=str(tmp_path / "fresh")))
    assert files(place) == files(tmp_path / "fresh") != before
    with pytest.raises(UserError, match=r"holds threshold 0\.05"):
        export_run(finished, former)
