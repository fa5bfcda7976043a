"""Look at a run: neuroglancer, `report.html`, and pictures."""

from .controls import STEP
from .layers import existing_layers
from .neuroglancer_view import neuroglancer_link, open_viewer, serving_until_interrupted, tunnel_command
from .planes import overview_picture
from .report import write_report, write_report_to

__all__ = [
    "STEP",
    "existing_layers",
    "neuroglancer_link",
    "open_viewer",
    "overview_picture",
    "serving_until_interrupted",
    "tunnel_command",
    "write_report",
    "write_report_to",
]
