"""Look at a run in neuroglancer. Volumes are read chunk by chunk as the browser asks for them, never whole."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import neuroglancer
import numpy as np
from funlib.geometry import Coordinate
from neuroglancer.local_volume import MeshesNotSupportedForVolume

from ..config import ViewConfig
from ..run import Run
from ..volumes import Box, position_of
from ..volumes.readable import Readable
from .layers import Layer, chosen_segmentation, existing_layers, shown_box

GREY_SHADER = """#uicontrol invlerp normalized
void main() {
  emitGrayscale(normalized());
}
"""
AFFINITY_SHADER = """void main() {
  emitRGB(vec3(toNormalized(getDataValue(0)), toNormalized(getDataValue(1)), toNormalized(getDataValue(2))));
}
"""
IMAGE_AFFINITY_SHADER = """void main() {
  emitRGB(vec3(0.0, toNormalized(getDataValue(0)), toNormalized(getDataValue(1))));
}
"""
PANEL_PIXELS = 450
"""A small region is enlarged to about this extent on the screen; a large one is shown pixel by pixel."""
LINKED: list[neuroglancer.Viewer] = []
"""Viewers that were given out as links; the server forgets those that nobody holds."""
CONTRAST_SAMPLE = 64
"""Extent in voxels of the sample that sets the contrast."""


class Sliced:
    """A volume as neuroglancer indexes arrays: by slices of all axes.

    Args:
        volume: (z, y, x) or (k, z, y, x).
    """

    def __init__(self, volume: Readable) -> None:
        channels = () if volume.channels is None else (volume.channels,)
        self._volume = volume
        self.shape = (*channels, *volume.shape)
        self.dtype = volume.dtype
        self.ndim = len(self.shape)

    def __getitem__(self, index: tuple[slice, ...]) -> np.ndarray:
        """The voxels of a box."""
        spans = [part.indices(extent) for part, extent in zip(index, self.shape, strict=True)]
        begin, end = (Coordinate(span[side] for span in spans[-3:]) for side in (0, 1))
        data = self._volume.read(Box(begin, end))
        result: np.ndarray = data if self.ndim == 3 else data[index[0]]
        return result


class LazyVolume(neuroglancer.LocalVolume):
    """A volume that is only ever read in boxes: neuroglancer's own meshes would load all of it."""

    def get_object_mesh(self, object_id: int) -> bytes:
        """Refuse meshes, which would need the whole volume in memory."""
        raise MeshesNotSupportedForVolume


def open_viewer(run: Run, position: Sequence[float] | None = None) -> neuroglancer.Viewer:
    """Start neuroglancer's server in this process and show the layers that exist.

    Args:
        run: the run to look at.
        position: what to look at, in nanometres, z, y, x. Default: the centre of the validated or segmented region.

    Returns:
        The viewer; its URL is `str(viewer)`, served as long as the viewer is referenced.

    Raises:
        UserError: there is no raw volume yet.
    """
    layers = existing_layers(run)
    raw = layers[0].volume
    start_server(run.config.view)
    viewer = neuroglancer.Viewer()
    segmentation = chosen_segmentation(run)
    with viewer.txn() as state:
        state.dimensions = _dimensions(raw)
        state.display_dimensions = ["x", "y", "z"]
        for layer in layers:
            visible = layer.name in ("raw", segmentation)
            shown = _neuroglancer_layer(layer, raw, run.config.volumes.images)
            state.layers.append(name=layer.name, layer=shown, visible=visible)
        box = shown_box(run, raw)
        middle = (np.asarray(box.begin) + np.asarray(box.end)) / 2
        centre = position_of(middle, raw.voxel_size, raw.offset) if position is None else position
        state.position = np.asarray(centre, float) / np.asarray(raw.voxel_size) + 0.5
        state.layout = "xy" if run.config.volumes.images else "4panel"
        state.cross_section_scale = min(1.0, max(box.shape[1:]) / PANEL_PIXELS)
        state.projection_scale = 2 * min(PANEL_PIXELS, max(box.shape[1:]))
    return viewer


def neuroglancer_link(run: Run, position: Sequence[float]) -> str:
    """The URL of a viewer at a position, for example of an error; served as long as this process lives.

    Args:
        run: the run to look at.
        position: nanometres, z, y, x.
    """
    viewer = open_viewer(run, position)
    LINKED.append(viewer)
    return str(viewer)


def start_server(view: ViewConfig) -> None:
    """Choose address and port; a server that runs already keeps its own."""
    neuroglancer.set_server_bind_address(view.host, view.port)


@contextmanager
def serving_until_interrupted() -> Iterator[None]:
    """Go on serving after the block until Ctrl-C, which is the way to end from the block's first line on."""
    try:
        yield
        threading.Event().wait()
    except KeyboardInterrupt:
        return


def _neuroglancer_layer(layer: Layer, raw: Readable, images: bool) -> neuroglancer.Layer:
    source = LazyVolume(
        Sliced(layer.volume),
        dimensions=_dimensions(layer.volume),
        volume_type="segmentation" if layer.kind == "objects" else "image",
        voxel_offset=_voxel_offset(layer, raw),
    )
    if layer.kind == "objects":
        return neuroglancer.SegmentationLayer(source=source, selected_alpha=0.35)
    if layer.kind == "affinities":
        return neuroglancer.ImageLayer(source=source, shader=IMAGE_AFFINITY_SHADER if images else AFFINITY_SHADER)
    contrast = {"normalized": {"range": list(layer.contrast or sampled_contrast(layer.volume))}}
    return neuroglancer.ImageLayer(source=source, shader=GREY_SHADER, shader_controls=contrast)


def _dimensions(volume: Readable) -> neuroglancer.CoordinateSpace:
    """Axes of the array: channels without a unit, z, y, x in nanometres."""
    channels = 0 if volume.channels is None else 1
    return neuroglancer.CoordinateSpace(
        names=["c^"] * channels + ["z", "y", "x"],
        units=[""] * channels + ["nm"] * 3,
        scales=[1] * channels + list(volume.voxel_size),
    )


def _voxel_offset(layer: Layer, raw: Readable) -> list[int]:
    """Position of the first voxel, counted in voxels; raw that begins within a voxel is shown at the nearest whole."""
    channels = 0 if layer.volume.channels is None else 1
    first = [round(o / s) for o, s in zip(raw.offset, raw.voxel_size, strict=True)]
    return [0] * channels + [f + b for f, b in zip(first, layer.begin, strict=True)]


def sampled_contrast(volume: Readable) -> tuple[float, float]:
    """Intensities that show as black and white, from a small box in the middle of the volume."""
    middle = volume.shape / 2
    sample = Box(middle, middle).grow([CONTRAST_SAMPLE // 2] * 3, [CONTRAST_SAMPLE // 2] * 3).intersect(volume.box)
    low, high = np.percentile(volume.read(sample), (0.5, 99.5))
    return float(low), float(max(high, low + 1))
