"""The block-wise stages from raw to segmentation, and where they run."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from .base import NEAREST_NEIGHBOURS, Fraction, NonNegative, Offset, Positive, Section, VoxelContext, VoxelShape

Seconds = Annotated[float, Field(gt=0)]


class ClusterConfig(Section):
    """Where blocks are computed."""

    executor: Literal["serial", "local"] = "local"
    """`serial`: in this process, for debugging; `local`: worker processes on this machine."""
    workers: Positive = 2
    """Worker processes."""
    threads_per_worker: Positive = 1
    """Threads that each worker's numerical libraries may use."""
    block_timeout: Seconds = 3600.0
    """Seconds after which a block counts as hung and its worker is replaced."""
    retries: NonNegative = 2
    """Times a failed block is tried again."""
    worker_restarts: NonNegative = 10
    """Times that dead workers are replaced before a stage gives up."""


class PredictConfig(Section):
    """Student inference: embedding, then affinities, stored as uint8 (255 = certain)."""

    network: Literal["student", "teacher"] = "student"
    """Whose checkpoint predicts."""
    checkpoint: str | None = None
    """Checkpoint file. Default: the newest of the run's student or teacher."""
    block_size: VoxelShape = (32, 256, 256)
    """Voxels that one block writes, also the chunk shape of the block-wise arrays."""
    offsets: tuple[Offset, ...] = NEAREST_NEIGHBOURS
    """Offsets of the stored affinities in voxels."""
    device: str = "auto"
    """`auto` takes a GPU if there is one."""
    autocast: Literal["auto", "off", "bfloat16", "float16"] = "off"
    """Reduced precision during inference."""


class FragmentsConfig(Section):
    """Over-segmentation of each block by seeded watershed on the mean affinity."""

    method: Literal["watershed", "mutex_watershed"] = "watershed"
    """`watershed`: seeds at maxima of the distance to boundaries; `mutex_watershed`: needs long-range offsets in
    `predict.offsets`."""
    context: VoxelContext = (4, 32, 32)
    """Voxels read around a block on each side."""
    in_plane: bool = False
    """Fragment each section by itself (anisotropic data)."""
    boundary_threshold: Fraction = 0.5
    """Voxels with a mean affinity below this are boundary."""
    seed_smoothing: Annotated[float, Field(ge=0)] = 1.0
    """Standard deviation in voxels of the Gaussian that smooths the boundary distance before seeds are sought."""
    seed_distance: Positive = 5
    """Least distance between seeds in voxels."""
    minimum_affinity: Fraction = 0.0
    """Fragments whose mean affinity is lower are removed (become 0)."""
    minimum_size: NonNegative = 0
    """Fragments with fewer voxels are given to their neighbours within the block."""

    def watershed_settings(self) -> dict[str, Any]:
        """The arguments of `seeded_watershed` that the config decides."""
        names = {
            "boundary_threshold",
            "seed_smoothing",
            "seed_distance",
            "in_plane",
            "minimum_affinity",
            "minimum_size",
        }
        return self.model_dump(include=names)


class AgglomerateConfig(Section):
    """How fragments are joined along the region adjacency graph."""

    method: Literal["waterz", "global"] = "global"
    """`waterz`: per block with context, scores from waterz; `global`: exact average linkage on the whole graph,
    independent of blocks."""
    context: VoxelContext = (4, 32, 32)
    """Voxels read around a block on each side (`waterz`)."""
    merge_function: Literal["mean", "hist_quant_25", "hist_quant_50", "hist_quant_75"] = "mean"
    """How `waterz` scores an edge."""
    maximum_score: Fraction = 1.0
    """Edges are merged up to this score; larger ones are kept apart at every threshold."""


class SegmentConfig(Section):
    """Which segmentations are written."""

    thresholds: Annotated[tuple[Fraction, ...], Field(min_length=1)] | Literal["best"] = "best"
    """Merge thresholds (1 - affinity: larger merges more) of the segmentations to write. `best`: the one with the
    lowest VOI on the validation region, or 0.5 when there are no labels."""
    minimum_size: NonNegative = 0
    """Segments with fewer voxels are set to 0."""


class EvaluateConfig(Section):
    """Scores against the labels of the validation region."""

    sweep: Annotated[tuple[Fraction, ...], Field(min_length=1)] = tuple(round(0.05 * step, 2) for step in range(1, 20))
    """Thresholds of the sweep, computed on the graph without writing volumes."""
    minimum_size: NonNegative = 500
    """Labels with fewer voxels in the region, after connected parts are told apart, are ignored."""
    relabel: bool = True
    """Treat separate connected parts of a label within the region as separate objects."""


class RagConfig(Section):
    """Where the region adjacency graph is stored."""

    url: str = "sqlite:///rag.sqlite"
    """`sqlite:///file`; a relative file lies in the run directory."""


class ViewConfig(Section):
    """The neuroglancer viewer."""

    host: str = "127.0.0.1"
    """Address to listen on; `0.0.0.0` lets other machines connect."""
    port: Annotated[int, Field(ge=0, le=65535)] = 0
    """Port to listen on; 0 takes a free one."""


class BlockwiseSections(Section):
    """The sections of all block-wise stages."""

    cluster: ClusterConfig = ClusterConfig()
    """Where blocks are computed."""
    predict: PredictConfig = PredictConfig()
    """Stage 02: affinities."""
    fragments: FragmentsConfig = FragmentsConfig()
    """Stage 03: fragments."""
    agglomerate: AgglomerateConfig = AgglomerateConfig()
    """Stage 04: region adjacency graph and agglomeration."""
    segment: SegmentConfig = SegmentConfig()
    """Stage 05: segmentation."""
    evaluate: EvaluateConfig = EvaluateConfig()
    """Stage 06: scores."""
    rag: RagConfig = RagConfig()
    """The graph store."""
    view: ViewConfig = ViewConfig()
    """Stage 07: viewer."""

    @model_validator(mode="after")
    def _method_has_its_affinities(self) -> BlockwiseSections:
        if tuple(self.predict.offsets[:3]) != NEAREST_NEIGHBOURS:
            raise ValueError("predict.offsets must start with [-1,0,0], [0,-1,0], [0,0,-1]")
        if self.fragments.method == "mutex_watershed" and len(self.predict.offsets) <= 3:
            raise ValueError("fragments.method mutex_watershed needs long-range offsets in predict.offsets")
        return self
