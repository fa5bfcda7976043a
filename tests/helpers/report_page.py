"""A report as a test reads it."""

from __future__ import annotations

import base64
import io
from html.parser import HTMLParser

import numpy as np
from matplotlib.image import imread


class ReportPage(HTMLParser):
    """Text, table rows, picture captions and addresses of a page."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.text: list[str] = []
        self.addresses: list[str] = []
        self.pictures: dict[str, np.ndarray] = {}
        self.open: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        if tag not in ("meta", "img", "br", "link"):
            self.open.append(tag)
        self.addresses += [value for name, value in attrs if name in ("src", "href", "srcset", "action") and value]
        if tag == "img":
            kind, _, data = str(values["src"]).partition(",")
            assert kind == "data:image/png;base64"
            self.pictures[str(values["alt"])] = imread(io.BytesIO(base64.b64decode(data)), format="png")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, f"{tag} closes nothing"

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style" and data.strip():
            self.text.append(" ".join(data.split()))
