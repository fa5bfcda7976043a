"""What runs a network that is only asked for embeddings: torch, or on CPUs a compiler of graphs, which is an optional
dependency (`pip install "emdistill[cpu]"`). All give the same embeddings within float rounding.
"""

from __future__ import annotations

import importlib.util
from abc import ABC, abstractmethod
from collections import OrderedDict
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import nn
from typing_extensions import override

from ..errors import UserError
from .base import EmbeddingNetwork
from .unet import CHANNELS_LAST

SHAPES_KEPT = 4
"""Compiled graphs of a network, one per shape of its input: inner and cut tiles are few shapes."""


class Engine(ABC):
    """Embeds windows, which `EmbeddingNetwork.windows` gives; for one thread at a time."""

    @abstractmethod
    def __call__(self, windows: torch.Tensor) -> torch.Tensor:
        """Windows (N, C, *input) float32 to embeddings (N, D, *output) float32, on the device of the windows."""


class TorchEngine(Engine):
    """torch itself, on any device, with channels last, which convolutions like best everywhere.

    Args:
        network: in evaluation mode, on its device.
        autocast: reduced precision; None: float32.
    """

    def __init__(self, network: EmbeddingNetwork, autocast: torch.dtype | None) -> None:
        self._network, self._autocast = network, autocast
        self._layout = CHANNELS_LAST[network.embedded_axes]

    @override
    def __call__(self, windows: torch.Tensor) -> torch.Tensor:
        reduced = torch.autocast(windows.device.type, self._autocast) if self._autocast is not None else nullcontext()
        with torch.inference_mode(), reduced:
            return self._network.embed_windows(windows.contiguous(memory_format=self._layout)).float()


class OpenVinoEngine(Engine):
    """OpenVINO on the CPU: a graph compiled for each shape of input that comes along; the last few are kept.

    Args:
        network: on the CPU, in evaluation mode.
        autocast: `torch.bfloat16`, or None for float32.
        threads: of the CPU.
        eight_bits: the `.xml` file of the network in eight bits; None for the network itself.
    """

    def __init__(
        self, network: EmbeddingNetwork, autocast: torch.dtype | None, threads: int, eight_bits: Path | None = None
    ) -> None:
        import openvino

        self._file = eight_bits
        self._graph = EmbeddingOnly(network).eval()
        precision = "bf16" if autocast is torch.bfloat16 else "f32"
        self._settings = {
            "INFERENCE_PRECISION_HINT": precision,
            "INFERENCE_NUM_THREADS": threads,
            "ENABLE_CPU_PINNING": False,  # it would put the threads of all workers on the same cores
        }
        self._core = openvino.Core()
        self._compiled: OrderedDict[tuple[int, ...], Any] = OrderedDict()

    @override
    def __call__(self, windows: torch.Tensor) -> torch.Tensor:
        shape = tuple(windows.shape)
        if shape not in self._compiled:
            if len(self._compiled) == SHAPES_KEPT:
                self._compiled.popitem(last=False)
            self._compiled[shape] = self._compile(shape)
        self._compiled.move_to_end(shape)
        output = self._compiled[shape](windows.contiguous().numpy(), share_inputs=True, share_outputs=False)
        return torch.from_numpy(output[0])

    def _compile(self, shape: tuple[int, ...]) -> Any:
        model = self._core.read_model(self._file) if self._file is not None else self._converted(shape)
        model.reshape(list(shape))
        return self._core.compile_model(model, "CPU", self._settings)

    def _converted(self, shape: tuple[int, ...]) -> Any:
        import openvino

        with torch.no_grad():
            return openvino.convert_model(self._graph, example_input=torch.zeros(shape))


def build_engine(
    name: str, network: EmbeddingNetwork, autocast: torch.dtype | None, threads: int, eight_bits: Path | None = None
) -> Engine:
    """Build the engine of a name.

    Args:
        name: `torch` or `openvino`.
        network: on its device, in evaluation mode.
        autocast: reduced precision; None: float32.
        threads: of the CPU, for all but torch, which has its own setting.
        eight_bits: file of the network in eight bits, for `openvino`; None for the network itself.

    Raises:
        UserError: it is not installed, or cannot do what is asked of it.
    """
    if name == "torch":
        return TorchEngine(network, autocast)
    why_not = _why_not_openvino(network, autocast)
    if why_not:
        raise UserError(f"openvino {why_not}", "predict.engine")
    return OpenVinoEngine(network, autocast, threads, eight_bits)


def _why_not_openvino(network: EmbeddingNetwork, autocast: torch.dtype | None) -> str:
    """Why OpenVINO cannot run a network; empty if it can."""
    if importlib.util.find_spec("openvino") is None:
        return 'is not installed; pip install "emdistill[cpu]"'
    if next(network.parameters()).device.type != "cpu":
        return "runs on CPUs only; set predict.device to cpu, or predict.engine to torch"
    if autocast is torch.float16:
        return "does not compute in float16; set predict.autocast to bfloat16 or off"
    return ""


def best_engine(device: torch.device) -> str:
    """What is fastest on a device of what is installed, as docs/BENCHMARKS.md has it: OpenVINO on CPUs, else torch."""
    return "openvino" if device.type == "cpu" and importlib.util.find_spec("openvino") is not None else "torch"


class EmbeddingOnly(nn.Module):
    """What is exported: a network without its taps."""

    def __init__(self, network: EmbeddingNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, windows: torch.Tensor) -> torch.Tensor:
        """Embed a batch of windows of sections."""
        return self.network.embed_windows(windows)
