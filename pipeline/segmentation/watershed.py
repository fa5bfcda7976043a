"""Over-segmentation of affinities: seeds in the middle of things, flooded until they meet.

Voxels with a low mean affinity are boundary. The distance to the nearest boundary, smoothed, has its maxima in the
middle of neurites: these are the seeds. A watershed on the same distance gives every voxel to a seed.

Voxels alone do not see two things: a flat contact of two neurites, where one affinity of three is low and their mean is
still high, and processes so thin that all of their voxels are boundary. So the watershed looks at the faces between
voxels as well. Voxels that confident affinities hold together are one *part*. A seed never reaches across parts, a part
without a seed is one, and water leaves a part only when it has nowhere else to go.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import cc3d
import numpy as np

from .affinities import as_unit_interval, check_kind
from .faces import connected_parts, open_faces

FLAT = 2.0
"""Voxels that are so many times longer along z than within sections are anisotropic."""

SMALLEST_PART = 2
"""Voxels of a part that is worth a seed: those of thick membranes hold nothing and are parts of one voxel."""


@dataclass(frozen=True)
class _Seeding:
    """How seeds are found.

    Attributes:
        boundary_threshold: voxels with a mean affinity below this are boundary.
        smoothing: standard deviation of the Gaussian on the distance, in in-plane voxels.
        distance: least distance between seeds, in in-plane voxels.
        spacing: size of a voxel along each axis, in units of the smallest one.
        in_plane: nothing along z.
    """

    boundary_threshold: float
    smoothing: float
    distance: int
    spacing: tuple[float, ...]
    in_plane: bool

    @property
    def anisotropic(self) -> bool:
        """Whether a step to the next section is much longer than one within a section."""
        return self.spacing[0] >= FLAT * min(self.spacing[1:])

    @property
    def deviations(self) -> tuple[float, ...]:
        """Standard deviations of the Gaussian along z, y, x in voxels."""
        along_z, *in_section = (self.smoothing / extent for extent in self.spacing)
        return (0.0 if self.in_plane else along_z, *in_section)

    @property
    def radii(self) -> tuple[int, ...]:
        """Voxels to each side along z, y, x within which a seed is the largest."""
        along_z, *in_section = (int(self.distance // extent) for extent in self.spacing)
        return (0 if self.in_plane else along_z, *in_section)


def seeded_watershed(
    affinities: np.ndarray,
    *,
    boundary_threshold: float = 0.5,
    seed_smoothing: float = 1.0,
    seed_distance: int = 5,
    in_plane: bool = False,
    voxel_size: Sequence[float] | None = None,
    face_threshold: float = 0.5,
    minimum_affinity: float = 0.0,
    minimum_size: int = 0,
) -> np.ndarray:
    """Fragments of a block: a watershed from the maxima of the distance to boundaries.

    Args:
        affinities: (3, z, y, x), float in [0, 1] or uint8 (255 = certain), to the nearest neighbours in z, y, x; with
            `in_plane` those in y, x are enough.
        boundary_threshold: voxels whose mean affinity is below this are boundary.
        seed_smoothing: standard deviation of the Gaussian that smooths the boundary distance before seeds are
            sought, in voxels of the finest axis.
        seed_distance: least distance between seeds, in voxels of the finest axis.
        in_plane: fragment each section by itself, from the y and x affinities (anisotropic data).
        voxel_size: extent of a voxel along z, y, x; only the ratios matter. Default: isotropic.
        face_threshold: voxels with at least this affinity are held together: water crosses all other faces last.
            0: all faces are alike, and only voxels count.
        minimum_affinity: fragments whose mean affinity is lower become 0.
        minimum_size: fragments with fewer voxels are given to their neighbours.

    Returns:
        (z, y, x) uint64 with ids 1..n. Only fragments below `minimum_affinity`, and a block (or section) that is
        boundary throughout and where nothing holds together, are 0. The same input always gives the same ids.

    Raises:
        ValueError: the affinities have another shape or dtype.
    """
    check_kind(affinities)
    if len(affinities) != 3 and not (in_plane and len(affinities) == 2):
        raise ValueError(f"a watershed needs the 3 nearest-neighbour affinities, got {len(affinities)} channels")
    if 0 in affinities.shape:
        return np.zeros(affinities.shape[1:], np.uint64)
    spacing = np.asarray(voxel_size if voxel_size is not None else (1, 1, 1), np.float64)
    spacing = spacing / spacing.min()
    if in_plane:
        affinities = affinities[-2:]
    seeding = _Seeding(boundary_threshold, seed_smoothing, seed_distance, tuple(spacing), in_plane)
    foreground = np.stack([mean >= boundary_threshold for mean in _mean_affinities(affinities)])
    faces = open_faces(affinities, face_threshold) if face_threshold > 0 else None
    if in_plane:
        sections = [slice(z, z + 1) for z in range(len(foreground))]
        fragments = _stack_sections(
            [_flooded(foreground[z], None if faces is None else faces[z], seeding, minimum_size) for z in sections]
        )
    else:
        fragments = _flooded(foreground, faces, seeding, minimum_size)
    if minimum_affinity > 0:
        fragments = _drop_uncertain(fragments, affinities, minimum_affinity)
    return fragments.astype(np.uint64)


def _mean_affinities(affinities: np.ndarray) -> Iterator[np.ndarray]:
    """The mean over the channels in [0, 1], section by section, (y, x) float32."""
    for z in range(affinities.shape[1]):
        yield as_unit_interval(affinities[:, z : z + 1]).mean(axis=0)[0]


def _flooded(foreground: np.ndarray, faces: np.ndarray | None, seeding: _Seeding, minimum_size: int) -> np.ndarray:
    """Fragments 1..n of a section or a block, (z, y, x) int32.

    Args:
        foreground: voxels that are not boundary.
        faces: open faces (see `open_faces`); None: all are alike.
        seeding: how seeds are found.
        minimum_size: fragments with fewer voxels are given to their neighbours.
    """
    from .flooding import flood  # compiled: whoever makes no fragments need not load a compiler

    distance = _smoothed_distance(foreground, seeding)
    fragments = flood(distance, _seeds(distance, foreground, faces, seeding), faces, sections_first=seeding.anisotropic)
    small = np.bincount(fragments.ravel()) < minimum_size if minimum_size > 0 else np.zeros(1, bool)
    if small[1:].any() and not small[1:].all():
        survivors = _compact(np.where(small[fragments], 0, fragments))
        fragments = flood(distance, survivors, faces, sections_first=seeding.anisotropic)
    return fragments


def _seeds(distance: np.ndarray, foreground: np.ndarray, faces: np.ndarray | None, seeding: _Seeding) -> np.ndarray:
    """Seeds 1..n, (z, y, x) int32; 0 elsewhere."""
    if faces is None:
        return _local_maxima(distance, foreground, np.ones(foreground.shape, np.uint8), seeding)
    from .part_seeds import seed_every_part  # compiled

    parts = connected_parts(faces)
    seeds = _local_maxima(distance, foreground, parts, seeding)
    seed_every_part(seeds, parts, SMALLEST_PART)
    return seeds


def _smoothed_distance(foreground: np.ndarray, seeding: _Seeding) -> np.ndarray:
    """How far each voxel is from the nearest boundary, (z, y, x) float32; 0 everywhere if there is none."""
    from .separable import boundary_distance, smooth

    if foreground.all():
        return np.zeros(foreground.shape, np.float32)
    distance = boundary_distance(foreground, seeding.spacing)
    if seeding.smoothing > 0:
        smooth(distance, seeding.deviations)
    return distance


def _local_maxima(distance: np.ndarray, foreground: np.ndarray, parts: np.ndarray, seeding: _Seeding) -> np.ndarray:
    """Seeds 1..n, (z, y, x) int32: foreground voxels that are the largest within `seeding.distance`.

    A plateau is one seed, or one in each of the parts (z, y, x) on which it lies.
    """
    from .separable import window_maximum

    largest = window_maximum(distance, seeding.radii)
    maxima = np.empty_like(parts)
    for section, window, inside, part, out in zip(distance, largest, foreground, parts, maxima, strict=True):
        np.multiply((section == window) & inside, part, out=out)
    del largest  # as large as the distance
    return cc3d.connected_components(maxima, connectivity=26, out_dtype=np.uint32).view(np.int32)


def _stack_sections(sections: list[np.ndarray]) -> np.ndarray:
    """One volume from sections that each count from 1, counting on from section to section."""
    counts = np.array([section.max() for section in sections], np.int64)
    first = np.concatenate([[0], np.cumsum(counts)[:-1]])
    return np.concatenate(
        [np.where(section > 0, section + before, 0) for section, before in zip(sections, first, strict=True)]
    )


def _drop_uncertain(fragments: np.ndarray, affinities: np.ndarray, minimum_affinity: float) -> np.ndarray:
    """Set fragments with a low mean affinity to 0 and close the gaps in the numbering."""
    sizes = np.bincount(fragments.ravel())
    sums: np.ndarray = np.zeros(len(sizes))
    ids = np.arange(len(sizes))
    for section, mean in zip(fragments, _mean_affinities(affinities), strict=True):
        values = np.concatenate([sums, mean.ravel()])  # the sums first: rounded as in one pass over all sections
        sums = np.bincount(np.concatenate([ids, section.ravel()]), weights=values)
    uncertain = sums < minimum_affinity * sizes
    return _compact(np.where(uncertain[fragments], 0, fragments))


def _compact(fragments: np.ndarray) -> np.ndarray:
    """Ids renumbered to 1..n in the same order; 0 stays."""
    present = np.bincount(fragments.ravel()) > 0
    present[0] = False
    result: np.ndarray = np.where(present, np.cumsum(present), 0)[fragments].astype(fragments.dtype)
    return result
