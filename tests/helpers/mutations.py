"""Damage to files, drawn from a seed: what full disks, bad disks, careless people and strangers leave."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable, Iterator
from typing import Any

RAW_TEXTS = (
    "9" * 5000,
    "-1",
    "0",
    "1e400",
    "-8.6e+300",
    "NaN",
    "1.5",
    "null",
    "true",
    '""',
    '"\\u0000"',
    '"~nouser/x"',
    '"\\ud800"',
    '"' + "x" * 3000 + '"',
    "[]",
    "{}",
    "[[1]]",
    '{"a": {"b": []}}',
    "[" * 100_000 + "]" * 100_000,
    '{"a":' * 20_000 + "1" + "}" * 20_000,
    "12345678901234567890123",
    "1000000000",
    '"3"',
)
"""JSON values that hardly any key expects."""
TOKEN = "@here@"


def damaged(data: bytes, chance: random.Random) -> bytes:
    """Other bytes in place of those of a file, whatever it is."""
    kinds: list[Callable[[bytes, random.Random], bytes]] = [_cut, _zeroed, _flipped, _garbage, _longer]
    if _is_json(data):
        kinds = [*kinds, *[_other_value] * 6, _without_key]
    if data.startswith(b"\x93NUMPY"):
        kinds = [*kinds, *[_other_header] * 4]
    other = chance.choice(kinds)(data, chance)
    return other if other != data else data + b"\0"


def _cut(data: bytes, chance: random.Random) -> bytes:
    return data[: chance.choice([0, 1, len(data) // 2, max(0, len(data) - 1), chance.randrange(len(data) + 1)])]


def _zeroed(data: bytes, chance: random.Random) -> bytes:
    begin = chance.choice([0, chance.randrange(len(data) + 1)])
    return data[:begin] + bytes(len(data) - begin)


def _flipped(data: bytes, chance: random.Random) -> bytes:
    changed = bytearray(data or b"\0")
    for _ in range(chance.choice([1, 1, 1, 20])):
        changed[chance.randrange(len(changed))] ^= 1 << chance.randrange(8)
    return bytes(changed)


def _garbage(data: bytes, chance: random.Random) -> bytes:
    return chance.randbytes(chance.choice([1, 64, 5000]))


def _longer(data: bytes, chance: random.Random) -> bytes:
    return data + chance.choice([data, bytes(100_000), b"}", b"\xff\xfe"])


def _is_json(data: bytes) -> bool:
    try:
        return isinstance(json.loads(data), dict | list)
    except (ValueError, RecursionError):
        return False


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every container in a JSON value, with each of its keys."""
    keys: Any = value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    for key in list(keys):
        yield value, key
        yield from _places(value[key])


def _other_value(data: bytes, chance: random.Random) -> bytes:
    """A value of another kind, or a huge one."""
    document = json.loads(data)
    places = list(_places(document))
    text = chance.choice(RAW_TEXTS)
    if not places or chance.random() < 0.05:
        return text.encode()
    holder, key = chance.choice(places)
    holder[key] = TOKEN
    return json.dumps(document).replace(f'"{TOKEN}"', text).encode()


def _without_key(data: bytes, chance: random.Random) -> bytes:
    document = json.loads(data)
    places = list(_places(document))
    if not places:
        return b"[]"
    holder, key = chance.choice(places)
    del holder[key]
    return json.dumps(document).encode()


def _other_header(data: bytes, chance: random.Random) -> bytes:
    """A header of npy that says something else."""
    length = int.from_bytes(data[8:10], "little")
    header, rest = data[10 : 10 + length].decode("latin1"), data[10 + length :]
    changes = [
        (r"'shape': \([^)]*\)", "'shape': (1000000000000,)"),
        (r"'shape': \([^)]*\)", "'shape': (-1,)"),
        (r"'shape': \([^)]*\)", "'shape': ()"),
        (r"'descr': '[^']*'", "'descr': '|O'"),
        (r"'descr': '[^']*'", "'descr': '<f8'"),
        (r"'descr': '[^']*'", "'descr': '<U99999999'"),
        (r"'descr': '[^']*'", "'descr': 7"),
        (r"\{", "{" * 50),
    ]
    pattern, text = chance.choice(changes)
    header = re.sub(pattern, text.replace("\\", ""), header, count=1)
    encoded = header.encode("latin1")
    return data[:8] + len(encoded).to_bytes(2, "little") + encoded + rest
