"""How training samples are made and how teacher and student learn from them."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from .base import (
    NEAREST_NEIGHBOURS,
    Fraction,
    LabelId,
    NanometreExtent,
    NonNegative,
    Offset,
    Positive,
    PositiveFloat,
    Probability,
    Section,
    VoxelShape,
    Weight,
)
from .distillation import DistillationConfig
from .networks import NetworkConfig


class ElasticConfig(Section):
    """Smooth random deformation and rotation in the section plane."""

    probability: Probability = 0.5
    """Share of samples that are deformed."""
    control_point_spacing: VoxelShape = (8, 48, 48)
    """Distance between control points in voxels."""
    jitter: tuple[Weight, Weight, Weight] = (0.0, 2.0, 2.0)
    """Standard deviation of the control points' displacement in voxels."""
    rotation: bool = True
    """Rotate by a random angle in the section plane."""


class AugmentConfig(Section):
    """Augmentations of raw and labels. Each can be switched off by a zero probability or amount."""

    mirror: tuple[bool, bool, bool] = (True, True, True)
    """Axes that may be mirrored, order z, y, x."""
    transpose_yx: bool = True
    """Exchange y and x."""
    transpose_all: bool = False
    """Exchange all three axes; only for isotropic voxels. Patches need not be cubic."""
    elastic: ElasticConfig | None = ElasticConfig()
    """Elastic deformation; `null` switches it off."""
    intensity_scale: tuple[PositiveFloat, PositiveFloat] = (0.8, 1.2)
    """Range of the random contrast factor."""
    intensity_shift: tuple[float, float] = (-0.15, 0.15)
    """Range of the random brightness shift, as a share of the intensity range."""
    intensity_per_section: bool = False
    """Draw contrast and brightness anew for each section (serial sections)."""
    noise: Weight = 0.02
    """Largest standard deviation of added Gaussian noise, as a share of the intensity range."""
    blur: Weight = 0.0
    """Largest standard deviation of a Gaussian blur in the section plane, in voxels."""
    blur_probability: Probability = 0.0
    """Share of samples that are blurred."""
    missing_sections: Probability = 0.0
    """Probability that a section is blanked (labels stay)."""
    low_contrast_sections: Probability = 0.0
    """Probability that a section loses contrast."""
    shift_sections: Probability = 0.0
    """Probability that a section, and all that follow, slip in the plane."""
    shift_voxels: NonNegative = 0
    """Largest slip in voxels."""


class DescriptorsConfig(Section):
    """Local shape descriptors (Sheridan et al., Nature Methods 2022) as an auxiliary target: besides affinities, what
    an object looks like around each of its voxels. A head that only the training has learns them; prediction and
    checkpoints of the network are as without.
    """

    sigma: NanometreExtent = 80.0
    """Standard deviation, in nanometres along all axes, of the Gaussian that says what is around a voxel. As published:
    80 for FIB-25, 120 where neurites are larger. Samples need labels up to three of it around them, so it should be
    some voxels, and not many tens."""
    weight: PositiveFloat = 1.0
    """Weight of the mean squared error beside the loss of the affinities."""
    learnt_by: Literal["teacher", "student", "both"] = "both"
    """The networks that learn them."""


class TargetsConfig(Section):
    """What the networks are asked to predict."""

    offsets: Annotated[tuple[Offset, ...], Field(min_length=1)] = (
        *NEAREST_NEIGHBOURS,
        (-2, 0, 0),
        (0, -4, 0),
        (0, 0, -4),
        (0, -12, 0),
        (0, 0, -12),
    )
    """Offsets of the supervised affinities. The first three should be the nearest neighbours."""
    erosion: NonNegative = 1
    """Width in voxels, to each side, of the background cut between touching neurites."""
    erosion_in_plane: bool = False
    """Cut only within sections (anisotropic data)."""
    balanced: bool = True
    """Pairs that belong together and pairs that do not have equal weight, however rare one kind is. `false`: every
    known pair counts alike."""
    background_weight: PositiveFloat | None = None
    """Weight of a pair of two background voxels, as a multiple of that of a pair within an object. Default: the one of
    any pair that does not belong together, all of which have as much weight as all that do. Where objects lie on a
    wide background, 1 lets the boundaries between objects keep their say, and objects end where they do."""
    unlabelled_id: LabelId | None = None
    """A label value that means "not annotated": no loss and no scores there. Label 0 is background, not unknown, unless
    named here. -1 and 18446744073709551615 are one value: with and without a sign."""

    descriptors: DescriptorsConfig | None = None
    """Local shape descriptors as an auxiliary target; `null` leaves them out, `{}` takes the defaults."""

    def descriptors_of(self, role: str) -> DescriptorsConfig | None:
        """The auxiliary target of a network, `teacher` or `student`; None if it has none."""
        descriptors = self.descriptors
        return descriptors if descriptors is not None and descriptors.learnt_by in (role, "both") else None

    @model_validator(mode="after")
    def _background_has_its_place_in_the_balance(self) -> TargetsConfig:
        if self.background_weight is not None and not self.balanced:
            raise ValueError("background_weight is a weight in the balance; set balanced to true, or leave it out")
        return self


class ScheduleConfig(Section):
    """One training: how long, how fast, how often to look."""

    iterations: Positive = 20000
    """Optimiser steps."""
    batch_size: Positive = 2
    """Samples per step."""
    patch_shape: VoxelShape = (9, 128, 128)
    """Voxels of raw that one sample shows to the network, context included."""
    learning_rate: PositiveFloat = 1e-3
    """Adam's step size."""
    schedule: Literal["constant", "cosine", "polynomial"] = "cosine"
    """How the learning rate falls to a fiftieth of itself over the iterations."""
    warm_up: NonNegative = 50
    """Iterations over which the learning rate rises to its value."""
    weight_decay: Weight = 0.0
    """L2 penalty on the weights."""
    average: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """The network that is validated and kept is a running average over the steps: what the average keeps of itself at
    each step, for example 0.999; less in the first steps. 0: the weights of the last step."""
    gradient_clip: PositiveFloat | None = 1.0
    """Largest norm of the gradient; `null` does not clip."""
    autocast: Literal["auto", "off", "bfloat16", "float16"] = "auto"
    """Reduced precision. `auto`: bfloat16 or float16 where the device has it in hardware, otherwise none."""
    device: str = "auto"
    """`auto` takes the first GPU if there is one; otherwise `cpu`, `cuda` or `cuda:1`."""
    minimum_labelled: Fraction = 0.1
    """A random location is rejected if a smaller share of its voxels carries a label."""
    loader_workers: NonNegative | Literal["auto"] = "auto"
    """Processes that prepare batches ahead. Never changes a result; 0 prepares them in the training process. `auto`
    begins with one and takes more while the training waits for data, as far as the cores go."""
    loader_cache: Positive = 8
    """Batches prepared ahead at most."""
    checkpoint_every: Positive = 500
    """Iterations between checkpoints."""
    keep_checkpoints: Positive = 3
    """Checkpoints kept; older ones are deleted."""
    validate_every: Positive = 500
    """Iterations between validations on `volumes.validate`."""
    validate_shape: VoxelShape = (32, 256, 256)
    """Largest part of the validation region (its middle) that validation during training looks at, in voxels."""
    log_every: Positive = 10
    """Iterations between TensorBoard scalars."""
    picture_every: Positive = 250
    """Iterations between TensorBoard pictures."""


class StudentConfig(Section):
    """The light network that runs over terabytes."""

    network: NetworkConfig
    """Architecture."""
    training: ScheduleConfig = ScheduleConfig()
    """Schedule."""
    offsets: Annotated[tuple[Offset, ...], Field(min_length=1)] | None = None
    """Those of `targets.offsets` that the labels teach the student; it has little room for any that its segmentation
    does not use. Default: all of them, as the teacher learns."""
    distillation: DistillationConfig | None = DistillationConfig()
    """What is distilled; `null` trains the student alone, for comparison."""

    @property
    def unlabelled_samples(self) -> int:
        """Samples of each batch that come from `volumes.unlabelled`, if there are any."""
        share = 0.0 if self.distillation is None else self.distillation.unlabelled.share
        return round(share * self.training.batch_size)
