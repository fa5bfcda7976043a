"""Precomputed exports of a run, which a viewer shows as they lie: ids, meshes, skeletons and properties of segments."""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import UserError
from ..small_files import Number, as_kind
from ..volumes.exports import read_json_at
from ..volumes.locations import Location
from .serving import RunViewer

NOTE = ".emdistill.json"
"""What an export says of itself."""


@dataclass(frozen=True)
class ExportedSegmentation:
    """The segmentation of an export.

    Attributes:
        name: of its layer.
        location: its folder, or URL.
        threshold: None if it does not say.
    """

    name: str
    location: Location
    threshold: float | None

    @staticmethod
    def of(place: Location, called: str) -> ExportedSegmentation:
        """The segmentation of an export.

        Args:
            place: where it was exported to.
            called: for the name of the layer.

        Raises:
            UserError: there is none, or its URL holds what must not be shown.
        """
        folder = place.child("segmentation")
        if folder.account or folder.query:
            raise UserError("a password or signature would be shown to whoever has the page", place.name)
        if read_json_at(folder, "info") is None:
            raise UserError("is no precomputed export: it has no segmentation/info", place.name)
        noted = read_json_at(place, NOTE) or {}
        threshold = noted.get("threshold")
        if threshold is not None:
            as_kind(threshold, Number, place.name)
        return ExportedSegmentation(called, folder, threshold)

    def url(self, viewer: RunViewer) -> str:
        """Where neuroglancer finds it."""
        if self.location.is_local:
            return f"{viewer.serve(self.name, self.location.file)}/|neuroglancer-precomputed:"
        return f"{self.location.name}/|neuroglancer-precomputed:"
