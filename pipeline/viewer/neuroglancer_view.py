"""Look at a run in neuroglancer: its files as they lie, and what a browser cannot read, chunk by chunk through here."""

from __future__ import annotations

import getpass
import logging
import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import neuroglancer
import numpy as np
from funlib.geometry import Coordinate
from neuroglancer.local_volume import MeshesNotSupportedForVolume

from ..errors import UserError
from ..evaluation import read_errors
from ..evaluation.runs import ERRORS
from ..evaluation.skeletons import ON_A_FACE
from ..rag import open_rag, rag_is_missing
from ..rag.connection_errors import is_connection_error
from ..run import Run, region_box
from ..units import threshold_name
from ..volumes import Box, open_volume, position_of, volume_exists
from ..volumes.locations import Location, located
from ..volumes.placement import nearest_voxel
from ..volumes.readable import Readable
from .controls import SEGMENTS, STEP, Controls
from .exported import ExportedSegmentation
from .joins import MOST_EDGES, Joins
from .layers import Layer, best_threshold, chosen_segmentation, existing_layers, shown_box, shown_threshold
from .serving import RunViewer, start_server
from .sources import NotReadable, files_of, source_at

logger = logging.getLogger(__name__)

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
ALPHA = 0.35
"""Of segments over raw."""
CERTAINTY = "certainty"
"""The array of how sure the segmentation is."""
FIRST_LAYERS = {name: place for place, name in enumerate(("raw", "affinities", "fragments", "labels"))}
"""They come first: the keys 1 to 9 show and hide layers by their order."""
DEFAULT_THRESHOLD = 0.5
"""Where keys begin to change the threshold of a run without scores and segmentations."""
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


def open_viewer(
    run: Run, position: Sequence[float] | None = None, exports: Sequence[str] = (), step: float = STEP
) -> RunViewer:
    """Start neuroglancer's server in this process and show the layers that exist.

    Args:
        run: the run to look at.
        position: what to look at, in nanometres, z, y, x; its voxel is shown. Default: the centre of the validated or
            segmented region.
        exports: paths or URLs of precomputed exports; those in the run directory are shown without being named.
        step: by which keys change the threshold.

    Returns:
        The viewer; its URL is `str(viewer)`, served as long as the viewer is referenced.

    Raises:
        UserError: there is no raw volume yet, the port is taken, or a place is no export.
    """
    layers = existing_layers(run)
    raw = layers[0].volume
    exported = exported_segmentations(run, exports)
    errors = [error for error in read_errors(run.directory / ERRORS) if error.position is not None]
    start_server(run.config.view)
    viewer = RunViewer()
    segmentation = chosen_segmentation(run)
    written = written_layers(layers, exported)
    shown = written.get((segmentation or "").removeprefix("segmentation "), segmentation)
    joins = open_joins(run, layers)
    images = run.config.volumes.images
    with viewer.txn() as state:
        state.dimensions = _dimensions(raw)
        state.display_dimensions = ["x", "y", "z"]
        for layer in sorted(layers, key=lambda layer: FIRST_LAYERS.get(layer.name, len(FIRST_LAYERS))):
            added = neuroglancer_layer(viewer, layer, raw, images)
            state.layers.append(name=layer.name, layer=added, visible=layer.name in ("raw", shown))
        if joins is not None:
            fragments = next(layer for layer in layers if layer.name == "fragments")
            joined = neuroglancer_layer(viewer, fragments, raw, images)
            state.layers.append(name=SEGMENTS, layer=joined, visible=False)
        for name, url in ((e.name, e.url(viewer)) for e in exported):
            layer = neuroglancer.SegmentationLayer(source=url, selected_alpha=ALPHA)
            state.layers.append(name=name, layer=layer, visible=name == shown)
        _add_certainty(viewer, run, state)
        box = shown_box(run, raw)
        middle = (np.asarray(box.begin) + np.asarray(box.end)) / 2
        centre = position_of(middle, raw.voxel_size, raw.offset) if position is None else position
        state.position = _middle_of_voxel(centre, raw) + _first_voxel(layers[0], raw)
        state.layout = "xy" if images else "4panel"
        state.cross_section_scale = min(1.0, max(box.shape[1:]) / PANEL_PIXELS)
        state.projection_scale = 2 * min(PANEL_PIXELS, max(box.shape[1:]))
    best = best_threshold(run)
    first = np.array(_first_voxel(layers[0], raw), float)
    viewer.controls = Controls(
        viewer=viewer,
        voxel_size=np.asarray(raw.voxel_size, float),
        first=first,
        offset=np.asarray(raw.offset, float),
        region=first + np.asarray(region_box(run.config.volumes.segment, raw.shape, "volumes.segment").begin, float),
        shown=shown,
        written=written,
        joins=joins,
        threshold=float(best or shown_threshold(run) or DEFAULT_THRESHOLD),
        errors=errors,
        errors_at=None if best is None else float(best),
        step=step,
    )
    viewer.controls.bind()
    return viewer


def exported_segmentations(run: Run, places: Sequence[str]) -> list[ExportedSegmentation]:
    """The precomputed segmentations of exports, with meshes and skeletons if they have any.

    Raises:
        UserError: a place that is named is no export.
    """
    named = [Location.of(place) for place in places]
    inside = [located(path.parent) for path in sorted(run.directory.glob("*/.emdistill.json"))]
    found = [ExportedSegmentation.of(place, place.path.rpartition("/")[2] or place.root) for place in named]
    for place in inside:
        if place not in named and (place.file / "segmentation" / "info").is_file():
            found.append(ExportedSegmentation.of(place, place.file.name))
    return found


def written_layers(layers: Sequence[Layer], exported: Sequence[ExportedSegmentation]) -> dict[str, str]:
    """The layer of each threshold by its name; an export is preferred, for it may have meshes."""
    written = {
        layer.name.removeprefix("segmentation "): layer.name
        for layer in layers
        if layer.name.startswith("segmentation ")
    }
    return written | {threshold_name(e.threshold): e.name for e in exported if e.threshold is not None}


def open_joins(run: Run, layers: Sequence[Layer]) -> Joins | None:
    """What keys change the threshold with, if the run is agglomerated and the graph is neither too large nor away."""
    if not any(layer.name == "fragments" for layer in layers) or rag_is_missing(run.config.rag, run.directory):
        return None
    try:
        with open_rag(run.config.rag, run.directory) as store:
            counts = store.counts()
    except Exception as error:
        if not isinstance(error, UserError) and not is_connection_error(error):
            raise
        logger.warning("no key changes the threshold, for the graph cannot be read: %s", str(error).partition("\n")[0])
        return None
    if counts.edges > MOST_EDGES:
        logger.info("no key changes the threshold: the graph has %d edges, more than %d", counts.edges, MOST_EDGES)
    return Joins(run) if counts.scored_edges > 0 and counts.edges <= MOST_EDGES else None


def _add_certainty(viewer: RunViewer, run: Run, state: Any) -> None:
    """The map of how sure the segmentation is, if there is one; it has voxels of its own."""
    if not volume_exists(run.volume, CERTAINTY):
        return
    volume = open_volume(run.volume, CERTAINTY)
    layer = Layer(CERTAINTY, "intensity", volume)
    added = neuroglancer_layer(viewer, layer, volume, images=False)
    added.opacity = 0.5
    state.layers.append(name=CERTAINTY, layer=added, visible=False)


def neuroglancer_link(run: Run, position: Sequence[float]) -> str:
    """The URL of a viewer at a position, for example of an error; served as long as this process lives.

    Args:
        run: the run to look at.
        position: nanometres, z, y, x.
    """
    viewer = open_viewer(run, position)
    LINKED.append(viewer)
    return str(viewer)


def tunnel_command() -> str:
    """What to run on the machine in front of you so that the link of a viewer here works there: the same port."""
    port, name = neuroglancer.server.global_server.port, socket.getfqdn()
    host = socket.gethostname() if name.startswith("localhost") else name
    return f"ssh -N -L {port}:127.0.0.1:{port} {getpass.getuser()}@{host}"


@contextmanager
def serving_until_interrupted() -> Iterator[None]:
    """Go on serving after the block until Ctrl-C, which is the way to end from the block's first line on."""
    try:
        yield
        threading.Event().wait()
    except KeyboardInterrupt:
        return


def neuroglancer_layer(viewer: RunViewer, layer: Layer, raw: Readable, images: bool) -> neuroglancer.Layer:
    """A volume as a layer, its place counted in voxels of raw; `images`: affinities have no z."""
    source = _source(viewer, layer, raw)
    if layer.kind == "objects":
        return neuroglancer.SegmentationLayer(source=source, selected_alpha=ALPHA)
    if layer.kind == "affinities":
        return neuroglancer.ImageLayer(source=source, shader=IMAGE_AFFINITY_SHADER if images else AFFINITY_SHADER)
    contrast = {"normalized": {"range": list(layer.contrast or sampled_contrast(layer.volume))}}
    return neuroglancer.ImageLayer(source=source, shader=GREY_SHADER, shader_controls=contrast)


def _source(viewer: RunViewer, layer: Layer, raw: Readable) -> neuroglancer.LayerDataSource | LazyVolume:
    """The files of a volume if neuroglancer can read them; else the volume, read by this process."""
    volume, first = layer.volume, _first_voxel(layer, raw)
    try:
        return source_at(viewer, files_of(volume), layer.name, volume.voxel_size, first, volume.channels is not None)
    except NotReadable as reason:
        logger.info("%s is read by this process for neuroglancer: %s", layer.name, reason)
    return LazyVolume(
        Sliced(volume),
        dimensions=_dimensions(volume),
        volume_type="segmentation" if layer.kind == "objects" else "image",
        voxel_offset=[0] * (volume.channels is not None) + first,
    )


def _dimensions(volume: Readable) -> neuroglancer.CoordinateSpace:
    """Axes of the array: channels without a unit, z, y, x in nanometres."""
    channels = 0 if volume.channels is None else 1
    return neuroglancer.CoordinateSpace(
        names=["c^"] * channels + ["z", "y", "x"],
        units=[""] * channels + ["nm"] * 3,
        scales=[1] * channels + list(volume.voxel_size),
    )


def _middle_of_voxel(position: Sequence[float], raw: Readable) -> np.ndarray:
    """(3,) the middle of the voxel of raw that a position in nanometres lies in, in voxels from the first one."""
    place = (np.asarray(position, float) - np.asarray(raw.offset)) / np.asarray(raw.voxel_size)
    return np.asarray(np.floor(place + ON_A_FACE) + 0.5)


def _first_voxel(layer: Layer, raw: Readable) -> list[int]:
    """Position of the first voxel, counted in voxels; raw that begins within a voxel is shown at the nearest whole."""
    first = nearest_voxel(raw.offset, raw.voxel_size)
    return [f + b for f, b in zip(first, layer.begin, strict=True)]


def sampled_contrast(volume: Readable) -> tuple[float, float]:
    """Intensities that show as black and white, from a small box in the middle of the volume."""
    middle = volume.shape / 2
    sample = Box(middle, middle).grow([CONTRAST_SAMPLE // 2] * 3, [CONTRAST_SAMPLE // 2] * 3).intersect(volume.box)
    low, high = np.percentile(volume.read(sample), (0.5, 99.5))
    return float(low), float(max(high, low + 1))
