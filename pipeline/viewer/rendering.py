"""Bodies as shaded pictures, computed here: no graphics card, no browser.

Orthographic, from obliquely above. Triangles are drawn into a buffer that keeps the nearest point of each pixel; then
every pixel is shaded by its normal, and darkened where what lies beside it is nearer ("eye-dome lighting", Boucheny,
PhD thesis, Grenoble 2009), which tells touching bodies apart. Memory depends on the picture and on the largest body,
not on how many there are.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from ..segmentation.compiled import compiled

TURN, TILT = 32.0, 24.0
"""Degrees that the volume is turned around its y axis and tilted towards the viewer."""
LIGHT = np.array([-0.45, -0.65, -0.62])
"""Towards the light, in the picture's axes: right, down, away from the viewer."""
AMBIENT, DIFFUSE, GLOSS = 0.34, 0.72, 0.16
FOG = 0.22
"""Share of grey that the farthest point is mixed with."""
FOG_GREY = 0.55
FRAME_GREY = 0.58
SUPERSAMPLING = 2
"""Pixels that are computed per pixel along each axis."""
RELIEF = 0.06
"""Of the picture's depth; what lies nearer by more than that darkens no further."""


@dataclass(frozen=True)
class Surface:
    """The surface of a body.

    Attributes:
        vertices: (V, 3) float, nanometres, order z, y, x.
        normals: (V, 3) float, of unit length, outwards, same order.
        faces: (F, 3) int, rows of `vertices`.
        colour: (3,) float in [0, 1], RGB.
    """

    vertices: np.ndarray
    normals: np.ndarray
    faces: np.ndarray
    colour: np.ndarray


@dataclass(frozen=True)
class View:
    """Where a box of the world comes to lie in a picture.

    Attributes:
        begin, end: of the box in nanometres, order z, y, x.
        width: of the picture in pixels, as computed.
        axes: (3, 3), the directions to the right, down and away of the picture, each along z, y, x.
        low, high: (3,) the smallest and largest position of the box's corners along `axes`, in nanometres.
    """

    begin: np.ndarray
    end: np.ndarray
    width: int
    axes: np.ndarray = field(init=False)
    low: np.ndarray = field(init=False)
    high: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        turn, tilt = np.deg2rad(TURN), np.deg2rad(TILT)
        around_y = np.array([[np.cos(turn), 0, np.sin(turn)], [0, 1, 0], [-np.sin(turn), 0, np.cos(turn)]])
        around_x = np.array([[1, 0, 0], [0, np.cos(tilt), -np.sin(tilt)], [0, np.sin(tilt), np.cos(tilt)]])
        axes = (around_x @ around_y)[:, ::-1]  # of z, y, x, not x, y, z
        corners = self.corners() @ axes.T
        for name, value in {"axes": axes, "low": corners.min(axis=0), "high": corners.max(axis=0)}.items():
            object.__setattr__(self, name, value)

    def corners(self) -> np.ndarray:
        """(8, 3) the corners of the box, order z, y, x."""
        return np.array(list(itertools.product(*zip(self.begin, self.end, strict=True))), dtype=float)

    @property
    def scale(self) -> float:
        """Pixels per nanometre."""
        return float((self.width - 1) / max(self.high[0] - self.low[0], 1e-9))

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return int(np.ceil((self.high[1] - self.low[1]) * self.scale)) + 1, self.width

    def project(self, points: np.ndarray) -> np.ndarray:
        """(N, 3) column and row in pixels, and the distance from the nearest corner in pixels too."""
        return np.asarray((points @ self.axes.T - self.low) * self.scale)


class _Buffer:
    """The nearest point of every pixel so far."""

    def __init__(self, shape: tuple[int, int]) -> None:
        self.shape = shape
        self.depth = np.full(shape, np.inf, np.float32)
        self.normal = np.zeros((*shape, 3), np.float32)
        self.colour = np.zeros((*shape, 3), np.float32)

    def add(self, surface: Surface, view: View) -> None:
        """Draw the triangles of a surface that face the viewer."""
        points = view.project(surface.vertices).astype(np.float32)
        normals = (surface.normals @ view.axes.T).astype(np.float32)
        draw_triangles(
            points,
            normals,
            np.ascontiguousarray(surface.faces, np.int64),
            surface.colour.astype(np.float32),
            self.depth,
            self.normal,
            self.colour,
        )

    def add_points(self, points: np.ndarray, colour: float) -> None:
        """Draw points (N, 3) as of `View.project` that no light falls on."""
        column, row = (np.rint(points[:, axis]).astype(np.int64) for axis in (0, 1))
        inside = (column >= 0) & (column < self.shape[1]) & (row >= 0) & (row < self.shape[0])
        pixels = row[inside], column[inside]
        depth = np.full(self.shape, np.inf, np.float32)
        np.minimum.at(depth, pixels, points[inside, 2].astype(np.float32))
        nearer = depth < self.depth
        self.depth[nearer], self.normal[nearer], self.colour[nearer] = depth[nearer], 0, colour


@compiled
def draw_triangles(
    points: np.ndarray,
    normals: np.ndarray,
    faces: np.ndarray,
    colour: np.ndarray,
    depth: np.ndarray,
    normal: np.ndarray,
    colours: np.ndarray,
) -> None:
    """Draw triangles into a buffer, pixel by pixel, those whose corners all face away from the viewer left out.

    Args:
        points: (V, 3) float32 column, row, depth.
        normals: (V, 3) float32, in the same axes.
        faces: (F, 3) int64.
        colour: (3,) float32.
        depth, normal, colours: (h, w), (h, w, 3), (h, w, 3) float32; changed where a triangle is nearer.
    """
    height, width = depth.shape
    for face in range(len(faces)):
        a, b, c = faces[face, 0], faces[face, 1], faces[face, 2]
        if normals[a, 2] > 0 and normals[b, 2] > 0 and normals[c, 2] > 0:
            continue
        ax, ay, bx, by, cx, cy = points[a, 0], points[a, 1], points[b, 0], points[b, 1], points[c, 0], points[c, 1]
        area = (bx - ax) * (cy - ay) - (by - ay) * (cx - ax)
        if area == 0:
            continue
        first_row, last_row = max(0, int(np.ceil(min(ay, by, cy)))), min(height - 1, int(np.floor(max(ay, by, cy))))
        first, last = max(0, int(np.ceil(min(ax, bx, cx)))), min(width - 1, int(np.floor(max(ax, bx, cx))))
        for row in range(first_row, last_row + 1):
            for column in range(first, last + 1):
                of_b = ((column - ax) * (cy - ay) - (row - ay) * (cx - ax)) / area
                of_c = ((bx - ax) * (row - ay) - (by - ay) * (column - ax)) / area
                of_a = 1 - of_b - of_c
                if of_a < -1e-5 or of_b < -1e-5 or of_c < -1e-5:
                    continue
                here = of_a * points[a, 2] + of_b * points[b, 2] + of_c * points[c, 2]
                if here >= depth[row, column]:
                    continue
                depth[row, column] = here
                for axis in range(3):
                    normal[row, column, axis] = (
                        of_a * normals[a, axis] + of_b * normals[b, axis] + of_c * normals[c, axis]
                    )
                    colours[row, column, axis] = colour[axis]


def render(surfaces: Iterable[Surface], begin: Sequence[float], end: Sequence[float], width: int) -> np.ndarray:
    """A picture of bodies in a box, whose edges are drawn.

    Args:
        surfaces: the bodies; each is forgotten when it is drawn.
        begin, end: of the box, in nanometres, order z, y, x.
        width: of the picture in pixels.

    Returns:
        (h, w, 4) float in [0, 1], RGBA: transparent where nothing is.
    """
    view = View(np.asarray(begin, float), np.asarray(end, float), width * SUPERSAMPLING)
    buffer = _Buffer(view.shape)
    for surface in surfaces:
        buffer.add(surface, view)
    buffer.add_points(_edges(view), FRAME_GREY)
    return _averaged(_shaded(buffer, view))


def _edges(view: View) -> np.ndarray:
    """The edges of the box as points."""
    corners = view.corners()
    lines = [(a, b) for a, b in itertools.combinations(range(8), 2) if (corners[a] != corners[b]).sum() == 1]
    along = np.linspace(0, 1, 3 * view.width)[:, None]
    points = view.project(np.concatenate([corners[a] + along * (corners[b] - corners[a]) for a, b in lines]))
    beside = points.copy()
    beside[:, 1] += 1  # two pixels wide, which become one
    return np.concatenate([points, beside])


def _shaded(buffer: _Buffer, view: View) -> np.ndarray:
    """(h, w, 4) RGBA of what the buffer holds."""
    there = np.isfinite(buffer.depth)
    colour, length = buffer.colour.copy(), np.linalg.norm(buffer.normal, axis=-1)
    body = there & (length > 0)
    unit = buffer.normal[body] / length[body, None]
    light = LIGHT / np.linalg.norm(LIGHT)
    half = light + np.array([0, 0, -1.0])
    lit = np.clip(unit @ light, 0, None)
    shine = np.clip(unit @ (half / np.linalg.norm(half)), 0, None) ** 40
    deepest = float((view.high[2] - view.low[2]) * view.scale)
    shaded = colour[body] * (AMBIENT + DIFFUSE * lit)[:, None] + GLOSS * shine[:, None]
    shaded *= _relief(buffer.depth, deepest)[body, None]
    fog = FOG * np.clip(buffer.depth[body] / deepest, 0, 1)[:, None]
    colour[body] = shaded * (1 - fog) + FOG_GREY * fog
    return np.concatenate([np.clip(colour, 0, 1), there[..., None]], axis=-1)


def _relief(depth: np.ndarray, deepest: float) -> np.ndarray:
    """(h, w) in (0, 1]: darker where neighbours are nearer to the viewer."""
    depth, (height, width) = np.where(np.isfinite(depth), depth, np.float32(deepest)), depth.shape
    padded, most = np.pad(depth, 4, mode="edge"), RELIEF * deepest
    hidden = np.zeros_like(depth)
    for reach in (2, 4):
        for down, right in itertools.product((-reach, 0, reach), repeat=2):
            beside = padded[4 + down : 4 + down + height, 4 + right : 4 + right + width]
            hidden += np.clip(depth - beside - reach, 0, most)
    return np.asarray(np.exp(-hidden / most / 6))


def _averaged(image: np.ndarray) -> np.ndarray:
    """The picture with `SUPERSAMPLING`² pixels as one, colours weighted by how opaque they are."""
    height, width = (extent // SUPERSAMPLING * SUPERSAMPLING for extent in image.shape[:2])
    tiles = image[:height, :width].reshape(height // SUPERSAMPLING, SUPERSAMPLING, width // SUPERSAMPLING, -1, 4)
    opacity = tiles[..., 3:].mean(axis=(1, 3))
    colour = (tiles[..., :3] * tiles[..., 3:]).mean(axis=(1, 3)) / np.maximum(opacity, 1e-6)
    return np.concatenate([colour, opacity], axis=-1)
