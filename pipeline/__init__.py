"""emdistill: distil heavy electron microscopy segmentation networks and run them block by block.

    from pipeline import open_run, predict

imports what a function needs when it is called for; docs/API.md lists the functions.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .api import (
        agglomerate,
        distill,
        evaluate,
        export,
        extract_fragments,
        import_data,
        open_run,
        predict,
        run_all,
        segment,
        segmentations,
        train_paraphraser,
        train_teacher,
        view,
        write_report,
    )
    from .errors import UserError
    from .run import Run

__version__ = "0.1.0"

__all__ = [
    "Run",
    "UserError",
    "agglomerate",
    "distill",
    "evaluate",
    "export",
    "extract_fragments",
    "import_data",
    "open_run",
    "predict",
    "run_all",
    "segment",
    "segmentations",
    "train_paraphraser",
    "train_teacher",
    "view",
    "write_report",
]


def __getattr__(name: str) -> Any:
    """A name of the public interface; `import pipeline` alone imports nothing."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from . import api, errors

    return getattr(errors if name == "UserError" else api, name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
