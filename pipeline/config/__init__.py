"""The whole config as strict pydantic models, one module per group of sections."""

from .advice import fragments_warnings, is_anisotropic
from .base import NEAREST_NEIGHBOURS, Offset, Section, VoxelShape, VoxelVector
from .blockwise import (
    AgglomerateConfig,
    EvaluateConfig,
    FragmentsConfig,
    PredictConfig,
    RagConfig,
    SegmentConfig,
    SmallSegmentsConfig,
    StorageConfig,
    ViewConfig,
)
from .cluster import ClusterConfig, JobConfig, SlurmConfig, StageJobConfig
from .distillation import (
    AdversarialConfig,
    DistillationConfig,
    GraphFlowConfig,
    LogitsConfig,
    ParaphraserConfig,
    UnlabelledConfig,
)
from .load import apply_override, config_hash, dump_config, load_config, parse_config
from .networks import MalaConfig, MalaTinyConfig, NetworkConfig, ResidualUnetConfig, SectionUnetConfig
from .never_join import NeverJoinConfig
from .plain_affinities import compared_offsets, taught_offsets
from .root import Config
from .teachers import (
    AffinitiesTeacherConfig,
    AnyTeacherConfig,
    StoredAffinitiesConfig,
    TeacherConfig,
    TorchscriptTeacherConfig,
)
from .training import AugmentConfig, DescriptorsConfig, ElasticConfig, ScheduleConfig, StudentConfig, TargetsConfig
from .volumes import ChosenSections, FileSource, PhantomSource, PublicSource, Region, Source, VolumesConfig

__all__ = [
    "NEAREST_NEIGHBOURS",
    "AdversarialConfig",
    "AffinitiesTeacherConfig",
    "AgglomerateConfig",
    "AnyTeacherConfig",
    "AugmentConfig",
    "ChosenSections",
    "ClusterConfig",
    "Config",
    "DescriptorsConfig",
    "DistillationConfig",
    "ElasticConfig",
    "EvaluateConfig",
    "FileSource",
    "FragmentsConfig",
    "GraphFlowConfig",
    "JobConfig",
    "LogitsConfig",
    "MalaConfig",
    "MalaTinyConfig",
    "NetworkConfig",
    "NeverJoinConfig",
    "Offset",
    "ParaphraserConfig",
    "PhantomSource",
    "PredictConfig",
    "PublicSource",
    "RagConfig",
    "Region",
    "ResidualUnetConfig",
    "ScheduleConfig",
    "Section",
    "SectionUnetConfig",
    "SegmentConfig",
    "SlurmConfig",
    "SmallSegmentsConfig",
    "Source",
    "StageJobConfig",
    "StorageConfig",
    "StoredAffinitiesConfig",
    "StudentConfig",
    "TargetsConfig",
    "TeacherConfig",
    "TorchscriptTeacherConfig",
    "UnlabelledConfig",
    "ViewConfig",
    "VolumesConfig",
    "VoxelShape",
    "VoxelVector",
    "apply_override",
    "compared_offsets",
    "config_hash",
    "dump_config",
    "fragments_warnings",
    "is_anisotropic",
    "load_config",
    "parse_config",
    "taught_offsets",
]
