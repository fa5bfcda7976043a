"""The graph stores against the graph writer of funlib.persistence: bulk writes, regions, streams, rows lost or doubled.

    python benchmarks/graph_stores/rag.py          # SQLite, files, and PostgreSQL if it is installed
    python benchmarks/graph_stores/rag.py --postgres postgresql://user@host/database --mongodb mongodb://host/database

All stores get the same blocks, from one and from four processes that start together. What is written is made before the
clock starts: tables for ours, networkx graphs for funlib's. Stores take turns; numbers are medians over the turns. The
last line of the output is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from graph_contenders import Contender, Data, FunlibPostgres, FunlibSqlite, Ours

ROOT = Path(__file__).resolve().parents[2]
WRITERS = (1, 4)
RIVAL = {"sqlite": "funlib_sqlite", "files": "funlib_sqlite", "postgresql": "funlib_postgresql"}

processes = multiprocessing.get_context("fork")


def write_share(contender: Contender, data: Data, share: list[int], ready: Any, times: Any) -> None:
    """Work of one writer process: prepare, start with the others, write; when it ended and how many blocks failed."""
    writers = contender.writers(data, share)
    ready.wait()
    begun, failed = time.perf_counter(), 0
    for write in writers:
        try:
            write()
        except Exception as error:
            failed += 1
            print(f"    {type(contender).__name__}: {type(error).__name__}: {error}", file=sys.stderr)
    times.put((begun, time.perf_counter(), failed))


def write_with(contender: Contender, data: Data, writers: int) -> tuple[float, int]:
    """Write all blocks with so many processes; seconds from the first start to the last end, and failed blocks."""
    contender.create()
    ready, times = processes.Barrier(writers), processes.Queue()
    shares = [list(range(first, data.blocks, writers)) for first in range(writers)]
    workers = [processes.Process(target=write_share, args=(contender, data, share, ready, times)) for share in shares]
    for worker in workers:
        worker.start()
    begun, ended, failed = zip(*(times.get() for _ in workers), strict=True)
    for worker in workers:
        worker.join()
    return max(ended) - min(begun), sum(failed)


def lost_and_doubled(found: np.ndarray, expected: np.ndarray) -> tuple[int, int]:
    """Rows that are missing, and rows that are there once too often."""
    unique = np.unique(found, axis=0)
    return len(np.unique(np.concatenate([unique, expected]), axis=0)) - len(unique), len(found) - len(unique)


def seconds_of(work: Callable[[], Any]) -> tuple[float, Any]:
    """How long it takes, and what it gives."""
    begun = time.perf_counter()
    result = work()
    return time.perf_counter() - begun, result


def measure(contender: Contender, data: Data, expected: tuple[np.ndarray, np.ndarray]) -> dict[str, float]:
    """Measure one store once."""
    result: dict[str, float] = {}
    rows = data.blocks * (data.nodes + data.edges)
    for writers in WRITERS:
        taken, failed = write_with(contender, data, writers)
        result[f"rows_per_second_{writers}"] = rows / taken
        result[f"nodes_per_second_{writers}"] = data.blocks * data.nodes / taken
        result[f"edges_per_second_{writers}"] = data.blocks * data.edges / taken
        result[f"failed_blocks_{writers}"] = failed
        result["stream_seconds"], found = seconds_of(contender.read_all)
        counts = [lost_and_doubled(has, wants) for has, wants in zip(found, expected, strict=True)]
        result[f"lost_{writers}"], result[f"doubled_{writers}"] = map(sum, zip(*counts, strict=True))
    result["roi_seconds"], _ = seconds_of(lambda: contender.read_region(data.roi))
    return result


def middle(turns: list[dict[str, float]]) -> dict[str, float]:
    """The median of each measure over turns; of counts of wrong rows the largest."""
    worst = ("lost", "doubled", "failed")
    return {name: (max if name.startswith(worst) else median)(turn[name] for turn in turns) for name in turns[0]}


@contextmanager
def contenders(options: argparse.Namespace) -> Iterator[dict[str, Contender]]:
    """All stores that can be had, by name."""
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        place = Path(folder)
        found: dict[str, Contender] = {
            "sqlite": Ours(f"sqlite:///{place / 'rag.sqlite'}"),
            "files": Ours(f"files:///{place / 'rag'}"),
            "funlib_sqlite": FunlibSqlite(place / "funlib.sqlite"),
        }
        with postgres_url(options.postgres) as url:
            if url:
                found["postgresql"] = Ours(with_schema(url))
                found["funlib_postgresql"] = FunlibPostgres(url)
            if options.mongodb:
                found["mongodb"] = Ours(with_schema(options.mongodb))
            yield found
            for contender in found.values():
                contender.remove()


def with_schema(url: str) -> str:
    """The URL of a graph of its own."""
    return f"{url}{'&' if '?' in url else '?'}schema=emdistill_benchmark"


@contextmanager
def postgres_url(given: str | None) -> Iterator[str | None]:
    """The given server, or a private one where PostgreSQL is installed, with the settings that it comes with."""
    if given:
        yield given
        return
    sys.path.append(str(ROOT / "tests" / "helpers"))
    import pytest
    from database_servers import PostgresServer

    try:
        server = PostgresServer(durable=True)
    except pytest.skip.Exception as reason:
        print(reason, file=sys.stderr)
        yield None
        return
    server.start()
    try:
        yield server.url
    finally:
        server.close()


def ratios(results: dict[str, dict[str, float]]) -> dict[str, float]:
    """Ours over funlib's on the same database; files are compared with its SQLite."""
    found = {}
    for name, rival in RIVAL.items():
        if name in results and rival in results:
            ours, theirs = results[name], results[rival]
            for writers in WRITERS:
                measure_name = f"rows_per_second_{writers}"
                found[f"{name}_over_funlib_write_{writers}"] = round(ours[measure_name] / theirs[measure_name], 2)
            for reading in ("stream", "roi"):
                measure_name = f"{reading}_seconds"
                found[f"{name}_over_funlib_{reading}"] = round(theirs[measure_name] / ours[measure_name], 2)
    return found


def print_table(results: dict[str, dict[str, float]], data: Data) -> None:
    """A row of Markdown per store."""
    print(f"{data.blocks} blocks of {data.nodes} nodes and {data.edges} edges")
    print("| store | writers | nodes/s | edges/s | lost | doubled | region | stream |")
    print("|---|---|---|---|---|---|---|---|")
    for name, result in results.items():
        for writers in WRITERS:
            nodes, edges = (result[f"{rows}_per_second_{writers}"] for rows in ("nodes", "edges"))
            wrong = f"{result[f'lost_{writers}']:,.0f} | {result[f'doubled_{writers}']:,.0f}"
            reads = f"{result['roi_seconds'] * 1000:.0f} ms | {result['stream_seconds'] * 1000:.0f} ms"
            shown = reads if writers == WRITERS[0] else " | "
            print(f"| {name} | {writers} | {nodes:,.0f} | {edges:,.0f} | {wrong} | {shown} |")


def main() -> None:
    """Measure all stores in turn and print the table and the ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few and small blocks")
    parser.add_argument("--turns", type=int, help="how often each store is measured (default: 3, or 1 with --quick)")
    parser.add_argument("--folder", type=Path, help="where files are written (default: the temporary folder)")
    parser.add_argument("--postgres", default=os.environ.get("EMDISTILL_TEST_POSTGRES_URL"), metavar="URL")
    parser.add_argument("--mongodb", default=os.environ.get("EMDISTILL_TEST_MONGODB_URI"), metavar="URI")
    options = parser.parse_args()

    data = Data(blocks=12, nodes=1000, edges=5000) if options.quick else Data(blocks=24, nodes=2000, edges=10_000)
    turns_wanted = options.turns or (1 if options.quick else 3)
    expected = data.all_rows()
    with contenders(options) as found:
        turns = [{name: measure(one, data, expected) for name, one in found.items()} for _ in range(turns_wanted)]
    results = {name: middle([turn[name] for turn in turns]) for name in turns[0]}
    print_table(results, data)
    ours = {name: result for name, result in results.items() if not name.startswith("funlib")}
    wrong = {
        kind: sum(r[f"{kind}_{writers}"] for r in ours.values() for writers in WRITERS) for kind in ("lost", "doubled")
    }
    print(json.dumps({"quick": options.quick, **ratios(results), **wrong, "stores": results}))


if __name__ == "__main__":
    main()
