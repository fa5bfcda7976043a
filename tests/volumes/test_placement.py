"""Where volumes lie, in every way in which formats state it; nothing stated is guessed at or rounded."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from stored_arrays import (
    SHAPE,
    ngff,
    raw_voxels,
    scale,
    translation,
    write_group,
    write_n5,
    write_precomputed,
    write_zarr,
    write_zarr3,
)

from pipeline.errors import UserError
from pipeline.volumes.dialects.tiff import imagej_statements, ome_statements
from pipeline.volumes.locations import Location
from pipeline.volumes.opening import Wanted, open_at
from pipeline.volumes.placement import Placement, combined
from pipeline.volumes.volume import Volume

RAW = raw_voxels()


def opened(path: Path, dataset: str | None = None, **wanted: Any) -> Volume:
    """The volume of a path, as it is opened for a config."""
    volume = open_at(Location.of(path), Wanted(dataset, where="volumes.sources.s", **wanted))
    assert volume is not None
    return volume


def place(volume: Volume) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Voxel size and offset, after a look at the voxels: axes and place must fit."""
    assert np.array_equal(volume.read(volume.box), RAW)
    return volume.voxel_size, volume.offset


def test_ngff_scales_and_translations_in_their_units(tmp_path: Path) -> None:
    write_group(tmp_path, ngff({"0": [scale(0.04, 0.006, 0.004), translation(4.0, 0.6, 0.4)]}))
    write_zarr(tmp_path / "0", RAW, dimension_separator="/")
    for volume in (opened(tmp_path), opened(tmp_path, "0"), opened(tmp_path / "0")):
        assert place(volume) == ((40, 6, 4), (4000, 600, 400))
        assert volume.placement.text == "40 x 6 x 4 nm"


def test_fractions_stay_as_they_are_written(tmp_path: Path) -> None:
    write_group(tmp_path, ngff({"0": [scale(0.00358, 0.00524, 0.00358), translation(0.1, 0.00358, 0.3)]}))
    write_zarr(tmp_path / "0", RAW)
    volume = opened(tmp_path)
    assert place(volume) == ((3.58, 5.24, 3.58), (100, 3.58, 300))
    assert volume.placement.text == "3.58 x 5.24 x 3.58 nm"


def test_ngff_transformations_of_the_level_come_first_and_those_of_the_pyramid_after(tmp_path: Path) -> None:
    levels = {"fine": [scale(1, 1, 1)], "coarse": [scale(1, 2, 2), translation(0, 0.5, 0.5)]}
    whole = [scale(40, 8.1, 8.1), translation(1000, 500, 100)]
    write_group(tmp_path, ngff(levels, unit="angstrom", whole=whole))
    write_zarr(tmp_path / "fine", RAW)
    write_zarr(tmp_path / "coarse", RAW)
    assert place(opened(tmp_path)) == ((4, 0.81, 0.81), (100, 50, 10))
    for level in (1, "coarse"):
        volume = opened(tmp_path, level=level)
        assert place(volume) == ((4, 1.62, 1.62), (100, 50.405, 10.405))
        assert volume.placement.centred


def test_ngff_0_5_with_five_axes_and_shards(tmp_path: Path) -> None:
    told = ngff({"s0": [scale(1, 1, 40, 8, 8)]}, axes="tczyx", unit="nanometer", version="0.5")
    (tmp_path / "zarr.json").write_text(
        __import__("json").dumps({"zarr_format": 3, "node_type": "group", "attributes": told})
    )
    data = np.stack([np.zeros_like(RAW), RAW])[None]
    write_zarr3(tmp_path / "s0", data, shard=(1, 1, 16, 32, 32), names=["t", "c", "z", "y", "x"])
    assert place(opened(tmp_path, channel=1)) == ((40, 8, 8), (0, 0, 0))
    with pytest.raises(UserError, match="has 2 channels; choose one") as refused:
        opened(tmp_path)
    assert refused.value.where == "volumes.sources.s.channel"


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        (ngff({"0": [scale(1, 1, 1)]}, unit=None), "units of its axes"),
        (ngff({"0": [scale(1, 1, 1)]}, unit="furlong"), "furlong"),
        (ngff({"0": [{"type": "affine", "affine": [1]}]}), "type 'affine'"),
        (ngff({"0": [scale(1, 1)]}), "without one number for each of 3 axes"),
    ],
)
def test_what_is_stated_and_not_understood_is_an_error_unless_the_config_states_it(
    tmp_path: Path, attributes: dict[str, Any], message: str
) -> None:
    write_group(tmp_path, attributes)
    write_zarr(tmp_path / "0", RAW)
    with pytest.raises(UserError, match=message) as refused:
        opened(tmp_path)
    assert refused.value.where == "volumes.sources.s.voxel_size"
    volume = opened(tmp_path, voxel_size=(40, 4.5, 4.5), offset=(0, 0, 0))
    assert place(volume) == ((40, 4.5, 4.5), (0, 0, 0))
    assert volume.placement.voxel_size_from == "the config"


def test_n5_cosem_transform_and_pixel_resolution_agree(tmp_path: Path) -> None:
    transform = {"axes": ["z", "y", "x"], "ordering": "C", "scale": [40.0, 6.0, 4.0], "units": ["nm"] * 3}
    attributes = {
        "pixelResolution": {"dimensions": [4.0, 6.0, 40.0], "unit": "nm"},
        "transform": {**transform, "translate": [4000.0, 600.0, 400.0]},
    }
    write_n5(tmp_path / "in.n5/em/s0", RAW, attributes)
    assert place(opened(tmp_path / "in.n5", "em/s0")) == ((40, 6, 4), (4000, 600, 400))


def test_n5_groups_without_attributes_are_groups(tmp_path: Path) -> None:
    write_n5(tmp_path / "in.n5/volumes/raw", RAW, {"resolution": [4, 6, 40], "offset": [10, 20, 30]})
    volume = opened(tmp_path / "in.n5", candidates=("raw", "volumes/raw"))
    assert place(volume) == ((40, 6, 4), (30, 20, 10))


def test_n5_level_of_a_pyramid_is_coarser_by_its_factors(tmp_path: Path) -> None:
    resolution = {"pixelResolution": {"dimensions": [0.0035, 0.0035, 0.04], "unit": "um"}}
    write_n5(tmp_path / "in.n5/em/s0", RAW, resolution)
    write_n5(tmp_path / "in.n5/em/s1", RAW, {**resolution, "downsamplingFactors": [2, 2, 1]})
    assert place(opened(tmp_path / "in.n5", "em", level=1)) == ((40, 7, 7), (0, 0, 0))
    assert place(opened(tmp_path / "in.n5", "em/s1")) == ((40, 7, 7), (0, 0, 0))
    assert place(opened(tmp_path / "in.n5", "em")) == ((40, 3.5, 3.5), (0, 0, 0))


def test_n5_group_says_the_finest_resolution_and_the_factors_of_all_levels(tmp_path: Path) -> None:
    write_n5(tmp_path / "em/s0", RAW)
    write_n5(tmp_path / "em/s1", RAW)
    told = '{"axes": ["x", "y", "z"], "resolution": [4, 4, 40], "units": ["nm", "nm", "nm"],'
    (tmp_path / "em/attributes.json").write_text(told + '"scales": [[1, 1, 1], [2, 2, 1]]}')
    assert place(opened(tmp_path / "em", level="s1")) == ((40, 8, 8), (0, 0, 0))


def test_n5_level_that_may_mean_either_is_refused(tmp_path: Path) -> None:
    write_n5(tmp_path / "em/s0", RAW)
    write_n5(tmp_path / "em/s1", RAW, {"resolution": [8, 8, 40], "downsamplingFactors": [2, 2, 1]})
    (tmp_path / "em/attributes.json").write_text('{"resolution": [4, 4, 40]}')
    with pytest.raises(UserError, match="states two values"):
        opened(tmp_path / "em", level=1)
    assert place(opened(tmp_path / "em", level=1, voxel_size=(40, 8, 8)))[0] == (40, 8, 8)


def test_n5_level_of_bigdataviewer_says_its_factors_two_groups_above(tmp_path: Path) -> None:
    """Read as if it were as fine as the finest level, it would be half as large as it is, without a word."""
    setup = tmp_path / "dataset.n5/setup0"
    for level in ("s0", "s1"):
        write_n5(setup / "timepoint0" / level, RAW)
    (setup / "attributes.json").write_text('{"downsamplingFactors": [[1, 1, 1], [2, 2, 1]], "dataType": "uint8"}')
    (setup / "timepoint0/attributes.json").write_text('{"resolution": [4, 6, 40], "multiScale": true}')
    assert place(opened(tmp_path / "dataset.n5", "setup0/timepoint0")) == ((40, 6, 4), (0, 0, 0))
    assert place(opened(tmp_path / "dataset.n5", "setup0/timepoint0", level=1)) == ((40, 12, 8), (0, 0, 0))
    assert place(opened(tmp_path / "dataset.n5", "setup0/timepoint0/s1")) == ((40, 12, 8), (0, 0, 0))


def test_n5_level_of_cosem_says_its_own_voxel_size_and_its_group_the_finest(tmp_path: Path) -> None:
    group = tmp_path / "hela.n5/em/fibsem"
    for level, factor in (("s0", 1), ("s1", 2)):
        size = {"dimensions": [4.0 * factor, 4.0 * factor, 3.24 * factor], "unit": "nm"}
        transform = {"axes": ["z", "y", "x"], "scale": [3.24 * factor, 4.0 * factor, 4.0 * factor]}
        moved = {"translate": [1.62 * (factor - 1), 2 * (factor - 1), 2 * (factor - 1)], "units": ["nm"] * 3}
        write_n5(group / level, RAW, {"pixelResolution": size, "transform": {**transform, **moved}})
    told = {"pixelResolution": {"dimensions": [4.0, 4.0, 3.24], "unit": "nm"}, "scales": [[1, 1, 1], [2, 2, 2]]}
    (group / "attributes.json").write_text(json.dumps({**told, "axes": ["x", "y", "z"], "units": ["nm"] * 3}))
    assert place(opened(group)) == ((3.24, 4, 4), (0, 0, 0))
    assert place(opened(group, level=1)) == ((6.48, 8, 8), (1.62, 2, 2))


def test_n5_level_of_which_nothing_says_how_much_coarser_it_is_is_refused(tmp_path: Path) -> None:
    for level in ("s0", "s1"):
        write_n5(tmp_path / "em" / level, RAW)
    (tmp_path / "em/attributes.json").write_text('{"resolution": [4, 6, 40]}')
    assert place(opened(tmp_path / "em")) == ((40, 6, 4), (0, 0, 0))
    with pytest.raises(UserError, match="nothing says how much coarser s1 is") as refused:
        opened(tmp_path / "em", level=1)
    assert refused.value.where == "volumes.sources.s.voxel_size"
    assert place(opened(tmp_path / "em", level=1, voxel_size=(40, 12, 8))) == ((40, 12, 8), (0, 0, 0))


@pytest.mark.parametrize("kind", ["vigra", "scales"])
def test_axes_that_ilastik_and_hdf5_itself_name(tmp_path: Path, kind: str) -> None:
    """ilastik exports volumes in the order x, y, z as readily as in any other, and says so in `axistags` alone."""
    tags = [{"key": key, "typeFlags": 2, "resolution": 0, "description": ""} for key in "xyzc"]
    for name, said, labels in (("good", json.dumps({"axes": tags}), "xyzc"), ("bad", "[[[", ["µm"] * 4)):
        with h5py.File(tmp_path / f"{name}.h5", "w") as file:
            array = file.create_dataset("exported_data", data=RAW.transpose(2, 1, 0)[..., None])
            if kind == "vigra":
                array.attrs["axistags"] = said
            else:
                for dimension, label in zip(array.dims, labels, strict=True):
                    dimension.label = label
    told = opened(tmp_path / "good.h5", "exported_data", voxel_size=(40, 6, 4))
    assert place(told) == ((40, 6, 4), (0, 0, 0))
    with pytest.raises(UserError, match="has 4 axes"):  # what is no JSON, or names other axes, names none
        opened(tmp_path / "bad.h5", "exported_data", voxel_size=(40, 6, 4))


def test_n5_axes_in_another_order_are_asked_for(tmp_path: Path) -> None:
    write_n5(tmp_path / "in.n5", RAW, {"resolution": [4, 6, 40], "axes": ["z", "y", "x"]})
    with pytest.raises(UserError, match="set axes in the config") as refused:
        opened(tmp_path / "in.n5")
    assert refused.value.where == "volumes.sources.s.axes"
    assert place(opened(tmp_path / "in.n5", axes="zyx"))[0] == (40, 6, 4)


def test_precomputed_counts_offsets_in_voxels_and_starts_with_x(tmp_path: Path) -> None:
    write_precomputed(tmp_path, RAW, (3.58, 5.24, 40), (100, 20, 3))
    assert place(opened(tmp_path)) == ((40, 5.24, 3.58), (120, 104.8, 358))
    assert opened(tmp_path, voxel_size=(50, 6, 4)).offset == (150, 120, 400)
    with pytest.raises(UserError, match="has the levels 0 to 0, not 2") as refused:
        opened(tmp_path, level=2)
    assert refused.value.where == "volumes.sources.s.level"


def test_funlib_attributes_of_the_nearest_group_count(tmp_path: Path) -> None:
    write_group(tmp_path, {"voxel_size": [1, 1, 1]})
    write_group(tmp_path / "volumes", {"resolution": [40.5, 6, 4], "offset": [81, 0, 0], "units": ["nm"] * 3})
    write_zarr(tmp_path / "volumes/raw", RAW)
    assert place(opened(tmp_path, "volumes/raw")) == ((40.5, 6, 4), (81, 0, 0))


@pytest.mark.parametrize(
    ("attributes", "expected"),
    [
        ({"resolution": [400.0, 40.0, 40.0], "units": "angstrom"}, (40, 4, 4)),
        ({"element_size_um": [0.04, 0.004, 0.004]}, (40, 4, 4)),
        ({"voxel_size": [0.04, 0.004, 0.004], "units": ["um", "um", "um"]}, (40, 4, 4)),
        ({"resolution": [40.0, 4.0, 4.0], "voxel_size": [4.0, 4.0, 40.0]}, "states two values"),
        ({"resolution": [1.0, 40.0, 4.0, 4.0]}, "4 numbers for an array of 3 axes"),
        ({"resolution": [40.0, 0.0, 4.0]}, "no voxel size"),
        ({}, "does not say its voxel size"),
    ],
)
def test_hdf5_attributes(tmp_path: Path, attributes: dict[str, Any], expected: Any) -> None:
    with h5py.File(tmp_path / "in.h5", "w") as file:
        file["volumes/raw"] = RAW
        file["volumes/raw"].attrs.update(attributes)
    if isinstance(expected, str):
        with pytest.raises(UserError, match=expected) as refused:
            opened(tmp_path / "in.h5", "volumes/raw")
        assert refused.value.where == "volumes.sources.s.voxel_size"
    else:
        assert place(opened(tmp_path / "in.h5", "volumes/raw"))[0] == expected
    volume = opened(tmp_path / "in.h5", "volumes/raw", voxel_size=(40, 4, 4))
    assert place(volume)[0] == (40, 4, 4)


def imagej(told: dict[str, Any], y: tuple[int, int], x: tuple[int, int]) -> Placement:
    """The placement of a TIFF with ImageJ's description."""
    return combined(imagej_statements(told, y, x), "in.tif", required=False)


def test_imagej_units_differ_between_axes() -> None:
    told = {"spacing": 40, "unit": "um", "zunit": "nm"}
    assert imagej(told, (166666667, 10**6), (250, 1)).voxel_size == (40, 6, 4)
    assert imagej({"spacing": 0.04, "unit": "micron"}, (27932961, 10**5), (250, 1)).voxel_size == (40, 3.58, 4)
    assert imagej({"spacing": 0.04, "unit": "\\u00B5m"}, (250, 1), (250, 1)).voxel_size == (40, 4, 4)
    assert imagej({"spacing": 1, "unit": "pixel"}, (1, 1), (1, 1)).voxel_size is None
    with pytest.raises(UserError, match="furlong"):
        imagej({"spacing": 40, "unit": "um", "zunit": "furlong"}, (250, 1), (250, 1))


def test_ome_xml_units_differ_between_axes() -> None:
    xml = (
        '<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06"><Image><Pixels PhysicalSizeX="0.00358"'
        ' PhysicalSizeY="5.24" PhysicalSizeYUnit="nm" PhysicalSizeZ="400" PhysicalSizeZUnit="Å"/></Image></OME>'
    )
    assert combined(ome_statements(xml), "in.tif").voxel_size == (40, 5.24, 3.58)


def test_four_axes_that_nobody_names_are_asked_for(tmp_path: Path) -> None:
    data = np.stack([RAW, RAW])
    write_zarr(tmp_path / "in.zarr", data, {"resolution": [40, 6, 4]})
    with pytest.raises(UserError, match="set axes"):
        opened(tmp_path / "in.zarr")
    assert place(opened(tmp_path / "in.zarr", axes="czyx", channel=1))[0] == (40, 6, 4)
    kept = opened(tmp_path / "in.zarr", axes="czyx", keep_channels=True)
    assert kept.channels == 2 and kept.shape == SHAPE


def test_axes_of_the_config_turn_the_volume(tmp_path: Path) -> None:
    write_zarr(tmp_path / "in.zarr", RAW.transpose(2, 1, 0), {"resolution": [4, 6, 40]})
    assert place(opened(tmp_path / "in.zarr", axes="xyz"))[0] == (40, 6, 4)
