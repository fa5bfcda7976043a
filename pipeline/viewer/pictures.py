"""Pictures inside an HTML page."""

from __future__ import annotations

import base64
from dataclasses import dataclass


@dataclass(frozen=True)
class Picture:
    """A picture of a page.

    Attributes:
        caption: what it shows.
        data: a data URL.
    """

    caption: str
    data: str


def embedded(caption: str, png: bytes) -> Picture:
    """A PNG as a part of the page."""
    return Picture(caption, "data:image/png;base64," + base64.b64encode(png).decode("ascii"))
