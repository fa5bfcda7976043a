"""A run that is ready to be scored: four cells, cut into fragments, and the graph that joins them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from pipeline.config import parse_config
from pipeline.rag import EdgeTable, NodeTable, open_rag
from pipeline.run import Run
from pipeline.segmentation import (
    connected_components,
    fragment_statistics,
    merge_scores,
    region_graph_statistics,
    relabel,
)
from pipeline.volumes import create_volume

NEAREST = ((-1, 0, 0), (0, -1, 0), (0, 0, -1))
SHAPE = (12, 20, 20)
SEGMENTED = (slice(2, 12), slice(0, 20), slice(4, 20))
VALIDATED = (slice(5, 12), slice(0, 20), slice(4, 20))
CHUNKS = (4, 8, 8)


def make_run(tmp_path: Path, **changes: Any) -> Run:
    """A config whose segmented region begins at (2, 0, 4); its validation region begins at z 5 and reaches beyond."""
    document: dict[str, Any] = {
        "run_directory": str(tmp_path / "run"),
        "volumes": {
            "sources": {"a": {"kind": "phantom"}},
            "segment": {"source": "a", "begin": [2, 0, 4], "end": [12, 20, 20]},
            "validate": {"source": "a", "begin": [5, 0, 0], "end": [12, 20, 20]},
        },
        "student": {"network": {"name": "section_unet"}, "distillation": None},
        "evaluate": {"sweep": [0.1, 0.3, 0.5, 0.7], "minimum_size": 1, "relabel": False},
    }
    for name, value in changes.items():
        document[name] = {**document.get(name, {}), **value}
    return Run(parse_config(document))


def fill_run(run: Run, scored: bool = True) -> dict[str, np.ndarray]:
    """Labels of four cells, each cut into 2 x 2 x 2 fragments; merging up to 0.3 is right, 0.5 joins the cells."""
    z, y, x = np.indices(SHAPE)
    labels = (1 + (y >= 10) + 2 * (x >= 14)).astype(np.uint64)
    cells = labels[SEGMENTED]
    z, y, x = np.indices(cells.shape)
    fragments = (cells * np.uint64(8) + (4 * (z >= 6) + 2 * (y % 10 >= 5) + (x % 10 >= 5)).astype(np.uint64)).astype(
        np.uint64
    )
    same = [cells == np.roll(cells, 1, axis) for axis in range(3)]
    affinities = np.where(np.stack(same), 0.8, 0.6).astype(np.float32)
    graph = region_graph_statistics(affinities, fragments, NEAREST)
    scores = merge_scores(graph.edges, graph.mean, graph.count)

    create_volume(run.volume, "raw", SHAPE, np.uint8, voxel_size=(10, 4, 4), chunks=CHUNKS)
    volume = create_volume(run.volume, "labels", SHAPE, np.uint64, voxel_size=(10, 4, 4), chunks=CHUNKS)
    volume.write(volume.box, labels)
    lut = connected_components(np.unique(fragments), graph.edges, scores, 0.3)
    written = relabel(fragments, lut[:, 0], lut[:, 1])
    for dataset, data in (("fragments", fragments), ("segmentation/0.30", written)):
        volume = create_volume(
            run.volume, dataset, data.shape, np.uint64, voxel_size=(10, 4, 4), offset=(20, 0, 16), chunks=CHUNKS
        )
        volume.write(volume.box, data)
    nodes = fragment_statistics(fragments)
    edges = EdgeTable.of(graph.edges, graph.count, graph.affinity_sum)
    with open_rag(run.config.rag, run.directory) as store:
        store.write_block(0, NodeTable(nodes.id, nodes.centre, nodes.size, nodes.begin, nodes.end), edges)
        if scored:
            store.write_scores(0, EdgeTable(edges.u, edges.v, edges.count, edges.affinity_sum, scores))
    return {"labels": labels, "fragments": fragments, "written": written}
