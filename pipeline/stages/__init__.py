"""What is computed, one file per stage: predict, fragments, region_graph, agglomerate, segment, pyramid.

What a stage of one's own can build on; each name is imported when it is asked for:

    from pipeline.stages import FragmentsTask
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .agglomerate import agglomeration
    from .by_script import STAGES_OF
    from .fragments import FragmentsTask
    from .predict import PredictTask
    from .region_graph import RagTask
    from .segment import SegmentTask

__all__ = ["STAGES_OF", "FragmentsTask", "PredictTask", "RagTask", "SegmentTask", "agglomeration"]

_MODULES = {
    "STAGES_OF": "by_script",
    "FragmentsTask": "fragments",
    "PredictTask": "predict",
    "RagTask": "region_graph",
    "SegmentTask": "segment",
    "agglomeration": "agglomerate",
}


def __getattr__(name: str) -> Any:
    """A public name, from the module that defines it."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_MODULES[name]}", __name__), name)
