"""Bodies are drawn at the right size, near ones hide far ones, and light falls from above."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.viewer.rendering import View, render
from pipeline.viewer.surfaces import rank_colours, surface_of

SIDE = 48
RED, BLUE = np.array([0.9, 0.1, 0.1]), np.array([0.1, 0.1, 0.9])
BOX = ((0, 0, 0), (SIDE * 40, SIDE * 20, SIDE * 20))


def ball(centre: tuple[float, float, float], radius: float) -> np.ndarray:
    """A ball of nanometres in voxels of 40 x 20 x 20 nm."""
    z, y, x = np.indices((SIDE,) * 3) + 0.5
    places = zip((z, y, x), centre, (40, 20, 20), strict=True)
    return np.asarray(sum((axis * size - middle) ** 2 for axis, middle, size in places) < radius**2)


def picture_of(*bodies: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    return render((surface_of(mask, (40, 20, 20), (0, 0, 0), colour) for mask, colour in bodies), *BOX, 200)


def pixels_of(image: np.ndarray, colour: np.ndarray) -> np.ndarray:
    """Where a body of this colour is seen."""
    main, others = int(np.argmax(colour)), [axis for axis in range(3) if axis != int(np.argmax(colour))]
    seen = image[..., 3] > 0.5
    return np.asarray(seen & (image[..., main] > 1.3 * image[..., others].max(axis=-1)))


def test_a_ball_is_a_disc_of_its_radius_whatever_the_voxels() -> None:
    image = picture_of((ball((960, 480, 480), 300), RED))
    view = View(np.array(BOX[0], float), np.array(BOX[1], float), 200)
    seen = pixels_of(image, RED)
    assert seen.sum() == pytest.approx(np.pi * (300 * view.scale) ** 2, rel=0.06)
    rows, columns = np.nonzero(seen)
    middle = view.project(np.array([[960.0, 480.0, 480.0]]))[0]
    assert (columns.mean(), rows.mean()) == pytest.approx((middle[0], middle[1]), abs=1.5)


def test_what_is_nearer_hides_what_lies_behind_and_light_comes_from_above() -> None:
    near, far = (ball((400, 480, 480), 250), RED), (ball((1500, 480, 480), 250), BLUE)
    alone = pixels_of(picture_of(near), RED).sum()
    for bodies in ((near, far), (far, near)):
        both = picture_of(*bodies)
        assert pixels_of(both, RED).sum() > 0.97 * alone
    rows = np.nonzero(pixels_of(picture_of(near), RED))[0]
    image = picture_of(near)
    top, bottom = (image[..., 0][pixels_of(image, RED) & mask] for mask in _halves(image, int(rows.mean())))
    assert top.mean() > 1.15 * bottom.mean()


def _halves(image: np.ndarray, row: int) -> tuple[np.ndarray, np.ndarray]:
    above = np.indices(image.shape[:2])[0] < row
    return above, ~above


def test_nothing_is_transparent_but_for_the_edges_of_the_box() -> None:
    empty = picture_of((np.zeros((SIDE,) * 3, bool), RED))
    assert empty.min() >= 0 and empty.max() <= 1
    assert 0.01 < (empty[..., 3] > 0).mean() < 0.1
    assert not pixels_of(empty, RED).any()


def test_a_body_that_is_cut_by_the_region_is_closed_and_a_thin_one_is_seen() -> None:
    cut = np.zeros((SIDE,) * 3, bool)
    cut[:8] = True
    surface = surface_of(cut, (40, 20, 20), (0, 0, 0), RED)
    edges = np.sort(np.concatenate([surface.faces[:, pair] for pair in ([0, 1], [1, 2], [2, 0])]), axis=1)
    assert (np.unique(edges, axis=0, return_counts=True)[1] == 2).all(), "every edge has two triangles"
    thin = np.zeros((SIDE,) * 3, bool)
    thin[10:40, 20:22, 20:22] = True
    assert pixels_of(picture_of((thin, RED)), RED).sum() > 50


def test_colours_of_ranks_differ() -> None:
    colours = rank_colours(12)
    apart = np.abs(colours[:, None] - colours[None]).sum(axis=-1) + 9 * np.eye(12)
    assert apart.min() > 0.15 and colours.min() >= 0 and colours.max() <= 1
