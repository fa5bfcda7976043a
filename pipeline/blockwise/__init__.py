"""Block-wise processing with daisy: from raw to a segmentation, in volumes of any size."""

from .audit import Damage, StageFindings, audit
from .grid import Block, BlockGrid
from .lock import only_driver
from .plan import log_plan
from .predict import PredictTask
from .presence import require_chunks
from .reinforcements import add_workers
from .requeue import blocks_to_redo, requeue
from .script import blockwise_script
from .stage import BlockTask, DriverStep, Stage, VolumeTask
from .stages import (
    agglomerate,
    agglomeration_stages,
    chosen_thresholds,
    extract_fragments,
    fragment_stages,
    predict,
    prediction_stages,
    run_chain,
    run_stages,
    segment,
    segmentation_stages,
)

__all__ = [
    "Block",
    "BlockGrid",
    "BlockTask",
    "Damage",
    "DriverStep",
    "PredictTask",
    "Stage",
    "StageFindings",
    "VolumeTask",
    "add_workers",
    "agglomerate",
    "agglomeration_stages",
    "audit",
    "blocks_to_redo",
    "blockwise_script",
    "chosen_thresholds",
    "extract_fragments",
    "fragment_stages",
    "log_plan",
    "only_driver",
    "predict",
    "prediction_stages",
    "requeue",
    "require_chunks",
    "run_chain",
    "run_stages",
    "segment",
    "segmentation_stages",
]
