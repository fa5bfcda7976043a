"""What would keep the regions of a training from teaching, found in metadata before anything is imported."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack

from funlib.geometry import Coordinate

from ...config import Offset, Region
from ...datasets.before_import import ForeseenSource, foresee
from ...run import Run, region_box
from .affinity_files import look_at_affinities, require_affinities
from .regions import (
    BEFORE_TEST,
    NEVER_SEEN,
    RegionPlace,
    check_places,
    refuse_shared,
    require_any_region,
    require_labels,
)
from .turned_offsets import require_turned_offsets


def require_regions(run: Run, output_shape: Coordinate, takes_unlabelled: bool, taught: Sequence[Offset]) -> None:
    """Refuse what training would refuse, as far as the metadata of the sources and of affinities on disk tell.

    Args:
        run: the run.
        output_shape: voxels that the network predicts from one patch.
        takes_unlabelled: whether samples come from `volumes.unlabelled`, too.
        taught: offsets of which affinities on disk must tell; none if such do not teach.

    Raises:
        UserError: as training would: a region reaches beyond its source, has no labels, is too small, or nothing
            teaches there.
    """
    volumes = run.config.volumes
    require_any_region(run.config)
    unlabelled = volumes.unlabelled if takes_unlabelled else ()
    validate = [volumes.validate_] if volumes.validate_ is not None else []
    with ExitStack() as stack:
        names = dict.fromkeys(region.source for region in (*volumes.train, *unlabelled, *validate))
        sources = {name: stack.enter_context(foresee(run, name)) for name in names}
        seen = [
            *_places(run, sources, volumes.train, "train", is_labelled=True),
            *_places(run, sources, unlabelled, "unlabelled", is_labelled=False),
        ]
        check_places([place for _, place in seen], output_shape, run.config.augment.transpose_all)
        for region, place in seen if taught else ():
            _require_taught(run, region.source, sources[region.source], place, taught)
        for source in (sources[region.source] for region in validate):
            if source is not None:
                _require_validation(run, source)


def _places(
    run: Run,
    sources: Mapping[str, ForeseenSource | None],
    regions: Sequence[Region],
    name: str,
    is_labelled: bool,
) -> Iterator[tuple[Region, RegionPlace]]:
    """The regions of a list of `volumes` whose sources can be foreseen, and where they lie."""
    for index, region in enumerate(regions):
        source = sources[region.source]
        if source is not None:
            yield region, _place(run, source, region, f"volumes.{name}.{index}", is_labelled, NEVER_SEEN)


def _require_validation(run: Run, source: ForeseenSource) -> None:
    region = run.config.volumes.validate_
    assert region is not None
    _place(run, source, region, "volumes.validate", True, BEFORE_TEST)


def _place(
    run: Run, source: ForeseenSource, region: Region, where: str, is_labelled: bool, others: Mapping[str, str]
) -> RegionPlace:
    if is_labelled:
        require_labels(region.source, source.is_labelled, where)
    place = RegionPlace(region_box(region, source.shape, where), source.voxel_size, where)
    refuse_shared(run, region, place, source.shape, others)
    return place


def _require_taught(
    run: Run, name: str, source: ForeseenSource | None, place: RegionPlace, offsets: Sequence[Offset]
) -> None:
    if source is not None and source.raw is not None:
        require_affinities(run, name, offsets, place.box, source.raw, tell=False)
        return
    _, told = look_at_affinities(run, name)  # where they lie on raw is not known yet
    require_turned_offsets(offsets, told, run.config.augment, f"teacher.affinities.{name}")
