"""The MongoDB store: four collections per graph, a few documents of columns per block.

A server that stands alone has no transactions over several documents. So a block's rows are written under a fresh
generation that no one reads, and the block's own document is then turned to it, which is one step; the former rows
are deleted. A kill leaves the old or the new block, and at worst rows of a generation that never counted, which
the next write of the block removes once they are older than `ABANDONED`.
"""

from __future__ import annotations

import contextlib
import datetime
from collections.abc import Iterator, Sequence
from typing import Any
from urllib.parse import quote, urlencode

import numpy as np
from bson import ObjectId
from funlib.geometry import Roi
from pymongo import ASCENDING, MongoClient, WriteConcern
from pymongo.collection import Collection, ReturnDocument
from pymongo.errors import DuplicateKeyError, PyMongoError
from typing_extensions import override

from ..errors import UserError
from .address import Address
from .block_index import BlockEntry, BlockIndex
from .store import RagStore
from .tables import EdgeTable, NodeTable

Document = dict[str, Any]

DRIVER_OPTIONS = {
    *("tls", "tlsCAFile", "tlsCertificateKeyFile", "tlsAllowInvalidCertificates", "tlsAllowInvalidHostnames"),
    *("authSource", "authMechanism", "replicaSet", "directConnection", "appName", "compressors", "retryWrites"),
    *("connectTimeoutMS", "serverSelectionTimeoutMS", "socketTimeoutMS", "maxPoolSize"),
}
"""What a URL may hand to the driver."""

SERVER_SELECTION_MS = 20_000
ROWS_PER_DOCUMENT = 20_000
"""A document of nodes stays below 4 MB; MongoDB allows 16."""
MOST_IDS = 100
"""Longer `$in` lists are slow."""
ABANDONED = datetime.timedelta(days=1)
READ_ATTEMPTS = 10

SUMMARY = {"first_v": 1, "last_v": 1, "nodes": 1, "edges": 1, "scored": 1}
AXES = ("z", "y", "x")


class MongoRag(RagStore):
    """A graph in the collections `<graph>.blocks`, `.nodes`, `.edges` and `.notes` of a database.

    Args:
        address: servers, database and name of the graph.
        create: make the indexes if there is no graph yet.

    Raises:
        UserError: no database is named, no connection, or the user may not do what is needed.
    """

    def __init__(self, address: Address, create: bool = True) -> None:
        if not address.database:
            raise UserError(f"name a database: {address.scheme}://host/database", "rag.url")
        try:
            self._client: MongoClient[Document] = _connect(address)
            self._client.admin.command("ping")
            database = self._client[address.database]
            concern = WriteConcern(w="majority", j=True)
            self._all = {
                name: database.get_collection(f"{address.graph}.{name}", write_concern=concern)
                for name in ("blocks", "nodes", "edges", "notes")
            }
            if create and not self.exists():
                self._create()
        except (PyMongoError, ValueError) as error:
            raise UserError(f"the MongoDB graph {address.graph!r} cannot be opened: {error}", "rag.url") from error

    @property
    def _blocks(self) -> Collection[Document]:
        return self._all["blocks"]

    def exists(self) -> bool:
        """Whether there is a graph of this name."""
        name = self._blocks.name
        return bool(self._blocks.database.list_collection_names(filter={"name": name}))

    def _create(self) -> None:
        for name in ("nodes", "edges"):
            key = [("block", ASCENDING), ("generation", ASCENDING), ("part", ASCENDING)]
            self._all[name].create_index(key, unique=True)
        self._blocks.create_index([("begin.0", ASCENDING), ("end.0", ASCENDING)])
        self._blocks.create_index([("last_v", ASCENDING), ("first_v", ASCENDING)])

    def _replace_block(self, entry: BlockEntry, nodes: NodeTable, edges: EdgeTable) -> None:
        generation = ObjectId()
        self._insert("nodes", entry.block, generation, _node_columns(nodes))
        self._insert("edges", entry.block, generation, _edge_columns(edges))
        summary = {name: value for name, value in vars(entry).items() if name != "block"}
        former = self._turn(entry.block, {**summary, "node_generation": generation, "edge_generation": generation})
        for name, field in (("nodes", "node_generation"), ("edges", "edge_generation")):
            self._delete(name, entry.block, former[field] if former else None, generation)

    def _turn(self, block: int, document: Document) -> Document | None:
        """Turn a block's document to new rows; what it was before."""
        for _ in range(2):  # where two writers create one document, the second one finds it at the second attempt
            with contextlib.suppress(DuplicateKeyError):
                return self._blocks.find_one_and_update(
                    {"_id": block}, {"$set": document}, upsert=True, return_document=ReturnDocument.BEFORE
                )
        raise RuntimeError(f"block {block} can neither be found nor created")

    @override
    def write_scores(self, block: int, scores: EdgeTable) -> None:
        while (before := self._blocks.find_one({"_id": block}, {"edge_generation": 1})) is not None:
            with self._decoding():
                (edges,) = self._read_edges([block])
            scored, generation = edges.with_scores(scores), ObjectId()
            self._insert("edges", block, generation, _edge_columns(scored))
            turn = {"$set": {"scored": scored.scored, "edge_generation": generation}}
            if self._blocks.update_one(before, turn).modified_count:
                self._delete("edges", block, before["edge_generation"], generation)
                return
            self._all["edges"].delete_many({"block": block, "generation": generation})  # it was replaced meanwhile

    def _insert(self, name: str, block: int, generation: ObjectId, columns: dict[str, np.ndarray]) -> None:
        rows = len(next(iter(columns.values())))
        documents = [
            {"block": block, "generation": generation, "part": part}
            | {column: values[first : first + ROWS_PER_DOCUMENT].tolist() for column, values in columns.items()}
            for part, first in enumerate(range(0, rows, ROWS_PER_DOCUMENT))
        ]
        if documents:
            self._all[name].insert_many(documents)

    def _delete(self, name: str, block: int, former: ObjectId | None, current: ObjectId) -> None:
        """Remove the rows that were just replaced, and those of writers that died long ago."""
        abandoned = ObjectId.from_datetime(datetime.datetime.now(datetime.UTC) - ABANDONED)
        self._all[name].delete_many({"block": block, "generation": {"$lt": abandoned, "$ne": current}})
        if former is not None and former != current:
            self._all[name].delete_many({"block": block, "generation": former})

    def _block_index(
        self, roi: Roi | None = None, ids: tuple[int, int] | None = None, blocks: Sequence[int] | None = None
    ) -> BlockIndex:
        query: Document = {}
        if roi is not None:
            for axis, (begin, end) in enumerate(zip(roi.begin, roi.end, strict=True)):
                query |= {f"begin.{axis}": {"$lt": int(end)}, f"end.{axis}": {"$gte": int(begin)}}
        if ids is not None:
            query |= {"last_v": {"$gte": ids[0]}, "first_v": {"$lte": ids[1]}}
        if blocks is not None:
            query["_id"] = {"$in": [int(block) for block in blocks]}
        found = sorted(self._blocks.find(query, SUMMARY), key=lambda document: document["_id"])
        return BlockIndex.of([tuple(document[name] for name in ("_id", *SUMMARY)) for document in found])

    def _read_nodes(self, blocks: Sequence[int]) -> Iterator[NodeTable]:
        for documents in self._read("nodes", "node_generation", blocks):
            yield NodeTable.concatenate(map(_node_table, documents))

    def _read_edges(self, blocks: Sequence[int]) -> Iterator[EdgeTable]:
        for documents in self._read("edges", "edge_generation", blocks):
            yield EdgeTable.concatenate(map(_edge_table, documents))

    def _read(self, name: str, field: str, blocks: Sequence[int]) -> Iterator[list[Document]]:
        """The documents of each block, by part; a block that is replaced meanwhile is read again."""
        for first in range(0, len(blocks), MOST_IDS):
            wanted = list(blocks[first : first + MOST_IDS])
            complete: dict[int, list[Document]] = {}
            for _ in range(READ_ATTEMPTS):
                missing = [block for block in wanted if block not in complete]
                if not missing:
                    break
                complete |= self._read_current(name, field, missing)
            lost = [block for block in wanted if block not in complete]
            if lost:
                cure = "redo the graph with --overwrite"
                raise UserError(
                    f"rows of block {lost[0]} are missing in {self._all[name].full_name}; {cure}", "rag.url"
                )
            yield from (complete[block] for block in wanted)

    def _read_current(self, name: str, field: str, blocks: list[int]) -> dict[int, list[Document]]:
        """The documents of those of the blocks whose current generation was found whole."""
        current = {found["_id"]: found for found in self._blocks.find({"_id": {"$in": blocks}}, {field: 1, name: 1})}
        generations = [found[field] for found in current.values()]
        parts: dict[ObjectId, list[Document]] = {generation: [] for generation in generations}
        query = {"block": {"$in": list(current)}, "generation": {"$in": generations}}
        for document in self._all[name].find(query) if current else ():
            parts[document["generation"]].append(document)
        whole: dict[int, list[Document]] = {block: [] for block in blocks if block not in current}
        for block, found in current.items():
            documents = sorted(parts[found[field]], key=lambda document: document["part"])
            if len(documents) == -(-found[name] // ROWS_PER_DOCUMENT):
                whole[block] = documents
        return whole

    @override
    def notes(self) -> dict[str, str]:
        return {str(found["_id"]): str(found["text"]) for found in self._all["notes"].find()}

    @override
    def set_note(self, name: str, text: str | None) -> None:
        if text is None:
            self._all["notes"].delete_one({"_id": name})
        else:
            self._all["notes"].replace_one({"_id": name}, {"text": text}, upsert=True)

    @override
    def drop(self) -> None:
        for name in ("notes", "blocks", "nodes", "edges"):
            self._all[name].delete_many({})

    @override
    def close(self) -> None:
        self._client.close()


def _connect(address: Address) -> MongoClient[Document]:
    """A client; it connects when it is used, and again after a connection was lost."""
    account: Document = {"username": address.user, "password": address.password} if address.user else {}
    if "serverSelectionTimeoutMS" not in address.options:
        account["serverSelectionTimeoutMS"] = SERVER_SELECTION_MS
    place = f"{address.scheme}://{address.hosts or 'localhost'}/{quote(address.database, safe='')}"
    return MongoClient(f"{place}?{urlencode(address.options)}", **account)


def _node_columns(nodes: NodeTable) -> dict[str, np.ndarray]:
    columns = {"id": nodes.id.astype(np.int64), "size": nodes.size}
    columns |= {axis: nodes.centre[:, index] for index, axis in enumerate(AXES)}
    columns |= {f"begin_{axis}": nodes.begin[:, index] for index, axis in enumerate(AXES)}
    return columns | {f"end_{axis}": nodes.end[:, index] for index, axis in enumerate(AXES)}


def _node_table(document: Document) -> NodeTable:
    def vectors(prefix: str, dtype: type) -> np.ndarray:
        return np.stack([np.array(document[prefix + axis], dtype=dtype) for axis in AXES], axis=1)

    return NodeTable(
        np.array(document["id"], dtype=np.uint64),
        vectors("", np.float64),
        np.array(document["size"], dtype=np.int64),
        vectors("begin_", np.int64),
        vectors("end_", np.int64),
    )


def _edge_columns(edges: EdgeTable) -> dict[str, np.ndarray]:
    return {**vars(edges), "u": edges.u.astype(np.int64), "v": edges.v.astype(np.int64)}


def _edge_table(document: Document) -> EdgeTable:
    return EdgeTable(
        np.array(document["u"], dtype=np.uint64),
        np.array(document["v"], dtype=np.uint64),
        np.array(document["count"], dtype=np.int64),
        np.array(document["affinity_sum"], dtype=np.float64),
        np.array(document["score"], dtype=np.float64),
    )
