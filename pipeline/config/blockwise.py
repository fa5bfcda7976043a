"""The block-wise stages from raw to segmentation, and where they run."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, field_serializer, model_validator

from .base import (
    NEAREST_NEIGHBOURS,
    Fraction,
    LabelId,
    NonNegative,
    Offset,
    Positive,
    PositiveFloat,
    Section,
    VoxelContext,
    VoxelShape,
)
from .cluster import ClusterConfig
from .graph_url import shown_url
from .never_join import NeverJoinConfig

DEFAULT_BLOCK = (32, 256, 256)
Bias = Annotated[float, Field(ge=-1.0, le=0.0)]


def _by_number(augment: Any) -> Any:
    return {8: "flips", 16: "flips_transpose"}.get(augment, augment) if type(augment) is int else augment


Augmentation = Annotated[Literal["none", "flips", "flips_transpose"], BeforeValidator(_by_number)]
"""How often, and how turned, a volume is looked at."""


class PredictConfig(Section):
    """Student inference: embedding, then affinities, stored as uint8 (255 = certain)."""

    network: Literal["student", "teacher"] = "student"
    """Whose checkpoint predicts."""
    checkpoint: str | None = None
    """Checkpoint file, or `pretrained:<name>` for a ready-made student (`python -m pipeline.networks pretrained` lists
    them), whose card completes what the config leaves out: `student`, `fragments`, and without `volumes.validate` the
    merge threshold. Default: the newest of the run's student or teacher."""
    block_size: VoxelShape | Literal["auto"] = DEFAULT_BLOCK
    """Voxels that one block writes, which are one file of each block-wise array. `auto`: the default."""
    tile_size: VoxelShape | Literal["auto"] = "auto"
    """Voxels that prediction computes at a time, rounded up to whole blocks; the margin that a network reads around
    them is computed for nothing. `auto`: what is computed fastest and fits into the memory. A run goes on with the
    tiles that it was begun with. On CPUs results do not depend on them; on a GPU they do by rounding, and `auto` gives
    the same tiles for the same region and kind of GPU, however many workers there are."""
    memory: PositiveFloat | None = None
    """Gigabytes that a tile may need. Default: half of what is free for each worker, or of what its job asks for; on a
    GPU, half of what it has (of 8 if only the workers have one), shared by `workers_per_gpu`."""
    engine: Literal["auto", "torch", "openvino"] = "auto"
    """What runs the network; OpenVINO (`pip install "emdistill[cpu]"`) on CPUs only. They agree within rounding: an
    affinity may differ by one of its 256 levels. `auto`: OpenVINO where it is installed, there is no GPU, and the
    region has more than 16 million voxels; else torch."""
    blocks_in_flight: Annotated[int, Field(ge=1, le=8)] = 2
    """Tiles that a worker has under way: while the network has one, others are read and written."""
    offsets: tuple[Offset, ...] = NEAREST_NEIGHBOURS
    """Offsets of the stored affinities in voxels."""
    device: str = "auto"
    """`auto` takes the GPUs if there are any, worker after worker another one."""
    workers_per_gpu: Positive = 1
    """Worker processes that share a GPU of this machine (`cluster.executor`: `local`), where `cluster.workers` suffice.
    More may help where reading and writing keep a GPU waiting; each has its part of the memory, for smaller tiles."""
    autocast: Literal["auto", "off", "bfloat16", "float16"] = "off"
    """Reduced precision during inference."""
    precision: Literal["float32", "int8"] = "float32"
    """`int8`: weights and features rounded to eight bits after training, for CPUs (`pip install "emdistill[int8]"`),
    with ranges measured once on raw of `volumes.train`, or without any on the segmented volume. About twice as fast
    where the CPU has VNNI. Needs the engine `openvino`, which `auto` takes then. `float32`: as the network was trained,
    or as `autocast` reduces it."""
    augment: Augmentation = "none"
    """Mean over mirrored (`flips`, 8 passes of the network) or mirrored and transposed raw (`flips_transpose`, 16), in
    as many times the time; the numbers 8 and 16 mean them, too. Mostly for a teacher whose affinities a student learns
    from. Of networks that see single sections, half as many are told apart."""
    keep_affinities: Literal["all", "until_used"] = "all"
    """`until_used`: a file of affinities is deleted when every block that reads it (fragments, graph; with context) is
    recorded as done, and made again if a later stage needs it once more. Affinities then need a fraction of the disk,
    where `04_agglomerate.py` or `run_all.py` runs prediction, fragments and graph together, portion by portion."""
    skip_empty: bool = True
    """Leave out blocks that hold nothing: no voxel of the source's mask, or raw voxels that are all the same. No stage
    computes them, and their outputs are 0."""

    @model_validator(mode="after")
    def _eight_bits_have_an_engine(self) -> PredictConfig:
        if self.precision == "int8" and self.engine == "torch":
            raise ValueError("precision int8 needs the engine openvino; set engine to auto or openvino")
        if self.precision == "int8" and self.autocast != "off":
            raise ValueError(
                "precision int8 goes with autocast off: what is rounded to eight bits is no longer reduced"
            )
        if self.precision == "int8" and self.device.startswith("cuda"):
            raise ValueError("precision int8 is for CPUs; set device to cpu, or leave precision out on GPUs (autocast)")
        return self

    @property
    def write_block(self) -> VoxelShape:
        """Voxels that one block writes."""
        return DEFAULT_BLOCK if self.block_size == "auto" else self.block_size


WATERSHED_SETTINGS = {
    "boundary_threshold",
    "seed_smoothing",
    "seed_distance",
    "face_threshold",
    "in_plane",
    "minimum_affinity",
    "minimum_size",
}
MUTEX_SETTINGS = {"attraction_bias", "repulsion_bias", "minimum_size"}


class FragmentsConfig(Section):
    """Over-segmentation of each block, by seeded watershed on the mean affinity or by mutex watershed."""

    method: Literal["watershed", "mutex_watershed"] = "watershed"
    """`watershed`: seeds at maxima of the distance to boundaries; `mutex_watershed`: needs long-range offsets in
    `predict.offsets`."""
    context: VoxelContext = (4, 32, 32)
    """Voxels read around a block on each side; along z none of separate images."""
    in_plane: bool = False
    """Fragment each section by itself (`watershed`): to be preferred where voxels are longer along z, since affinities
    between such sections are unsure. Only affinities along z join the sections then; where a network tells little
    there, fragments in 3D may suit it better: `06_evaluate.py --floor` after a prediction tries both. Separate images
    always are."""
    boundary_threshold: Fraction = 0.5
    """Voxels with a mean affinity below this are boundary (`watershed`)."""
    background_threshold: Fraction = 0.0
    """Voxels whose affinities to their nearest neighbours are lower, on average over both directions of each axis, are
    background: they become 0 and enter no fragment. 0: there is no background (neurites fill the volume)."""
    seed_smoothing: Annotated[float, Field(ge=0)] = 1.0
    """Standard deviation in voxels of the Gaussian that smooths the boundary distance before seeds are sought
    (`watershed`)."""
    seed_distance: Positive = 5
    """Least distance between seeds in voxels (`watershed`)."""
    face_threshold: Fraction = 0.5
    """Voxels with at least this affinity hold together: a seed never reaches beyond what hangs together so, whatever is
    left without a seed gets one, and water crosses other faces of voxels last. This keeps thin processes, and neurites
    that touch without a membrane. 0: only the mean affinity of each voxel counts (`watershed`), which may suit
    affinities that come from embeddings and are unsure inside of membranes: `06_evaluate.py --floor` tries both."""
    attraction_bias: Bias = -0.2
    """Added to affinities of nearest neighbours: above zero they attract, below they repel, strongest first
    (`mutex_watershed`)."""
    repulsion_bias: Bias = -0.7
    """The same for longer offsets; nearer to -1 keeps more objects apart (`mutex_watershed`)."""
    minimum_affinity: Fraction = 0.0
    """Fragments whose mean affinity is lower are removed (become 0; `watershed`)."""
    minimum_size: NonNegative = 0
    """Fragments with fewer voxels are given to their neighbours within the block; on a background, those without
    neighbours become 0."""

    def method_settings(self) -> dict[str, Any]:
        """The arguments of `make_fragments` that the config decides."""
        names = WATERSHED_SETTINGS if self.method == "watershed" else MUTEX_SETTINGS
        return self.model_dump(include={"method", "background_threshold"} | names)


class AgglomerateConfig(Section):
    """How fragments are joined along the region adjacency graph."""

    method: Literal["waterz", "global"] = "global"
    """`waterz`: per block with context, scores from waterz; `global`: exact average linkage on the whole graph,
    independent of blocks and regions."""
    region_size: VoxelShape = (1024, 1024, 1024)
    """Voxels of the regions that `global` begins with, rounded up to whole blocks. What a region cannot decide goes up
    to regions twice as long along each axis, until there is one. A volume of one region and at most 268 million
    voxels is linked in memory, by the driver. It decides nothing but memory and time."""
    memory: PositiveFloat = 16.0
    """Gigabytes that a task of `global` may take for its part of the graph: 260 bytes per edge in memory. Regions that
    need more are linked from the disk, in portions, with the same result; 60 bytes per cluster have to fit: if they do
    not, lower `region_size`, or allow more. `--dry-run` says what the largest region of the first level needs."""
    context: VoxelContext = (4, 32, 32)
    """Voxels read around a block on each side (`waterz`)."""
    merge_function: Literal["mean", "hist_quant_25", "hist_quant_50", "hist_quant_75"] = "mean"
    """How `waterz` scores an edge."""
    maximum_score: Fraction = 1.0
    """Edges are merged up to this score; larger ones are kept apart at every threshold."""
    never_join: NeverJoinConfig | None = None
    """Classes of fragments that are never joined with each other (soma, glia, myelin, out of tissue)."""


class SmallSegmentsConfig(Section):
    """A more lenient threshold for small segments: one with fewer than `below` voxels joins its best neighbour up to
    `threshold`, where two large ones would have to be surer. docs/METHODS.md has the rule to the letter.
    """

    below: Positive
    """Voxels; a segment with fewer is small."""
    threshold: Fraction
    """Merge threshold of joins with a small segment, where it is higher than that of the segmentation."""


class SegmentConfig(Section):
    """Which segmentations are written."""

    thresholds: Annotated[tuple[Fraction, ...], Field(min_length=1)] | Literal["best"] = "best"
    """Merge thresholds (1 - affinity: larger merges more) of the segmentations to write. `best`: the one with the
    lowest VOI on the validation region, or of separate images the one with the highest panoptic quality; 0.5 when there
    are no labels."""
    small_segments: SmallSegmentsConfig | None = None
    """Join small segments more readily than large ones: at every threshold, in the sweep of `06_evaluate.py`, the
    viewer and exports, too."""
    minimum_size: NonNegative = 0
    """Segments with fewer voxels are set to 0, after small ones were joined."""
    certainty: bool = True
    """Write `certainty`, how sure the segmentation at the first threshold is: a number from 0 to 1 per block, from the
    graph alone. docs/METHODS.md says how."""


class EvaluateConfig(Section):
    """Scores against the labels of the validation region."""

    sweep: Annotated[tuple[Fraction, ...], Field(min_length=1)] = tuple(round(0.05 * step, 2) for step in range(1, 20))
    """Thresholds of the sweep, computed on the graph without writing volumes."""
    minimum_size: NonNegative | None = None
    """Labels with fewer voxels in the region, after connected parts are told apart, are ignored. Default: 500, or 0 in
    separate images."""
    ignore: tuple[LabelId, ...] = ()
    """Labels whose voxels do not count, glia or artefacts for example. Training learns from them as from others, unlike
    `targets.unlabelled_id`."""
    relabel: bool | None = None
    """Treat separate connected parts of a label within the region as separate objects. Default: true, or false in
    separate images."""


class RagConfig(Section):
    """Where the region adjacency graph is stored."""

    url: Annotated[str, Field(repr=False)] = "sqlite:///rag.sqlite"
    """`sqlite:///file` or, for network file systems, `files:///folder`, both relative to the run directory;
    `postgresql://user@host:port/database?schema=name` or `mongodb://user@host:port/database?schema=name`, where
    `schema` names this run's graph in a shared database (default: after the run directory). docs/RAG.md says how to
    choose and where the password comes from."""

    @property
    def shown(self) -> str:
        """The URL without its password, for messages."""
        return shown_url(self.url)

    @field_serializer("url")
    def _without_password(self, url: str) -> str:
        return shown_url(url)


class StorageConfig(Section):
    """How the arrays of the run are stored."""

    format: Literal[2, 3] = 3
    """`3`: zarr 3 with OME-NGFF 0.5 metadata; a block is one file of many chunks, each with a checksum. `2`: zarr 2, a
    block is one chunk and one file. A run goes on in the format that it was begun with; the voxels are the same."""
    location: Annotated[str, Field(min_length=1)] | None = None
    """Where `volume.zarr` and converted sources lie: a folder, or a prefix in a bucket (`s3://bucket/prefix`,
    `gs://bucket/prefix`; needs format 3), of this run alone. Graph, checkpoints, records of finished blocks and
    everything small stay in the run directory. Default: the run directory."""

    @model_validator(mode="after")
    def _can_be_written(self) -> StorageConfig:
        scheme = (self.location or "").partition("://")[0].lower() if "://" in (self.location or "") else ""
        if scheme in ("http", "https"):
            raise ValueError("storage.location is on a web server, which is only read; name a folder or a bucket")
        if scheme in ("s3", "gs") and self.format == 2:
            raise ValueError("storage.location is a bucket, where arrays lie in storage.format 3 only")
        return self


class PyramidConfig(Section):
    """Coarser levels of the run's arrays, so that viewers show a large volume as a whole at once. Each level has half
    the voxels along the axes whose voxels are short, until they are about as long as wide, then along all axes; along z
    none of separate images. Together they add a seventh to a third to what is stored. Runs in `storage.format` 2 have
    none.
    """

    raw: bool = True
    """Levels of raw, by the mean. Of raw that is read in place they lie in the run, of the segmented region."""
    fragments: bool = True
    """Levels of fragments, by the majority: no id appears that was not there. Of these a viewer makes those of any
    threshold."""
    segmentation: bool = True
    """Levels of the segmentations, by the majority."""
    smallest: Positive = 64
    """The coarsest level is the first that has at most so many voxels along every axis."""


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
    storage: StorageConfig = StorageConfig()
    """The arrays of the run on disk."""
    pyramid: PyramidConfig = PyramidConfig()
    """Coarser levels of the arrays."""
    view: ViewConfig = ViewConfig()
    """Stage 07: viewer."""
