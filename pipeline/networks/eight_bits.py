"""Networks whose weights and features are rounded to eight bits after training, for CPUs (NNCF and OpenVINO).

The ranges that eight bits have to span are measured on windows of raw. The result is a graph in two files, `.xml` and
`.bin`, which any CPU reads, beside a digest of both: a bit that has changed would give other affinities without a word.
"""

from __future__ import annotations

import importlib.util
import io
import logging
from collections.abc import Sequence
from contextlib import redirect_stdout
from importlib.metadata import version
from pathlib import Path

import torch

from ..errors import UserError
from ..run import file_digest
from ..small_files import read_json, write_json
from .base import EmbeddingNetwork
from .engines import EmbeddingOnly

INSTALL = 'pip install "emdistill[int8]"'
WHERE = "predict.precision"
FASTER_WITH = {"avx512_vnni", "avx_vnni", "amx_int8", "i8mm", "asimddp"}
"""What processors call their instructions for products of eight bits."""


def require_quantiser() -> None:
    """Make sure that a network can be rounded here.

    Raises:
        UserError: something is not installed; says how to install it.
    """
    for package in ("openvino", "nncf"):
        if importlib.util.find_spec(package) is None:
            raise UserError(f"int8 needs {package}, which is not installed; {INSTALL}", WHERE)


def quantiser_versions() -> dict[str, str]:
    """What the result of rounding may depend on."""
    return {package: version(package) for package in ("openvino", "nncf")}


def has_eight_bit_products() -> bool | None:
    """Whether this CPU computes faster in eight bits (VNNI and its like); None if it does not say."""
    try:
        words = set(Path("/proc/cpuinfo").read_text().split())
    except OSError:
        return None
    return bool(words & FASTER_WITH)


def quantise(network: EmbeddingNetwork, windows: Sequence[torch.Tensor], graph: Path) -> None:
    """Round a network to eight bits and write it in one step.

    Args:
        network: on the CPU, in evaluation mode.
        windows: (1, C, *input) each, as `EmbeddingNetwork.windows` gives them: what features are measured on.
        graph: the `.xml` file; the others lie beside it.
    """
    import nncf
    import openvino

    logging.getLogger("nncf").setLevel(logging.ERROR)
    with torch.no_grad():
        model = openvino.convert_model(EmbeddingOnly(network).eval(), example_input=windows[0])
    with redirect_stdout(io.StringIO()):  # it draws progress bars
        rounded = nncf.quantize(
            model,
            nncf.Dataset([window.numpy() for window in windows]),
            preset=nncf.QuantizationPreset.MIXED,
            subset_size=len(windows),
        )
    graph.parent.mkdir(parents=True, exist_ok=True)
    for path in _files(graph):
        path.unlink(missing_ok=True)
    partial = graph.with_name(f"partial_{graph.name}")
    openvino.save_model(rounded, str(partial), compress_to_fp16=False)
    for path in (graph.with_suffix(".bin"), graph):
        partial.with_suffix(path.suffix).replace(path)
    write_json(_digest_file(graph), _digests(graph))


def is_quantised(graph: Path) -> bool:
    """Whether all files of a rounded network are there."""
    return all(path.exists() for path in _files(graph))


def delete_quantised(graph: Path) -> None:
    """Delete the files of a rounded network."""
    for path in reversed(_files(graph)):
        path.unlink(missing_ok=True)


def require_unchanged(graph: Path) -> None:
    """Make sure that the files of a rounded network are what was written.

    Raises:
        UserError: one is missing or has changed.
    """
    if not is_quantised(graph) or read_json(_digest_file(graph)) != _digests(graph):
        raise UserError("is missing or has changed since it was written; delete it and predict again", str(graph))


def _files(graph: Path) -> tuple[Path, Path, Path]:
    """In the order in which they are written; the digest says that the others are whole."""
    return graph.with_suffix(".bin"), graph, _digest_file(graph)


def _digest_file(graph: Path) -> Path:
    return graph.with_suffix(".json")


def _digests(graph: Path) -> dict[str, str]:
    return {path.suffix: file_digest(path) for path in (graph, graph.with_suffix(".bin"))}
