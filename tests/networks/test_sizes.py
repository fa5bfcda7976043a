"""Networks have the published sizes, and say which inputs they take."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from funlib.geometry import Coordinate

from pipeline.errors import UserError
from pipeline.networks import build_network, network_names
from pipeline.networks.residual_unet import PUBLISHED_STUDENT_WIDTHS, PUBLISHED_TEACHER_WIDTHS


@pytest.mark.parametrize(
    ("name", "settings", "millions", "digits"),
    [
        ("mala", {}, 84.02, 2),
        ("mala_tiny", {}, 0.368, 3),
        ("residual_unet", {"dimensions": 2, "widths": PUBLISHED_TEACHER_WIDTHS}, 33.6, 1),
        ("residual_unet", {"dimensions": 2, "widths": PUBLISHED_STUDENT_WIDTHS}, 0.296, 3),
    ],
)
def test_published_parameter_counts(name: str, settings: dict[str, Any], millions: float, digits: int) -> None:
    with torch.device("meta"):
        network = build_network(name, **settings)
    assert round(network.parameter_count() / 1e6, digits) == millions


@pytest.mark.parametrize("name", ["mala", "mala_tiny"])
def test_published_extents(name: str) -> None:
    with torch.device("meta"):
        network = build_network(name)
    assert network.output_shape((84, 268, 268)) == Coordinate(56, 56, 56)
    assert network.input_shape((56, 56, 56)) == Coordinate(84, 268, 268)
    assert network(torch.empty(1, 1, 84, 268, 268, device="meta")).shape == (1, 16, 56, 56, 56)


def test_frozen_parameters_do_not_count() -> None:
    network = build_network("section_unet", widths=[4, 6])
    network.requires_grad_(False)
    assert network.parameter_count() == 0


@pytest.mark.parametrize(
    ("name", "shape", "right"),
    [("mala_tiny", (84, 267, 268), "(84, 268, 268)"), ("section_unet", (9, 100, 128), "(9, 104, 128)")],
)
def test_unfit_input_names_one_that_fits(name: str, shape: tuple[int, ...], right: str) -> None:
    network = build_network(name)
    with pytest.raises(UserError) as error:
        network(torch.zeros(1, 1, *shape))
    assert right in str(error.value)


@pytest.mark.parametrize(("name", "shape"), [("mala_tiny", (28, 52, 52)), ("section_unet", (6, 128, 128))])
def test_input_without_output_is_refused(name: str, shape: tuple[int, ...]) -> None:
    with pytest.raises(UserError):
        build_network(name).output_shape(shape)


@pytest.mark.parametrize("name", ["mala_tiny", "section_unet", "residual_unet"])
@pytest.mark.parametrize("output", [(1, 1, 1), (3, 60, 61)])
def test_input_shape_fits_and_suffices(name: str, output: tuple[int, ...]) -> None:
    network = build_network(name)
    shape = network.input_shape(output)
    assert all(o >= w for o, w in zip(network.output_shape(shape), output, strict=True))


def test_unknown_network_lists_the_known_ones() -> None:
    with pytest.raises(UserError) as error:
        build_network("unet")
    assert all(name in str(error.value) for name in network_names())


def test_unknown_setting_is_refused() -> None:
    with pytest.raises(UserError, match="did you mean 'widths'"):
        build_network("section_unet", width=[3, 4])


def test_levels_must_fit_together() -> None:
    with pytest.raises(UserError, match="decoder_widths needs one entry"):
        build_network("mala", widths=[3, 4, 5], downsampling=[[1, 2, 2]] * 2, decoder_widths=[3])
