"""Block-wise processing with daisy: from raw to a segmentation, in volumes of any size."""

from .grid import Block, BlockGrid
from .plan import log_plan
from .predict import PredictTask
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
    "DriverStep",
    "PredictTask",
    "Stage",
    "VolumeTask",
    "agglomerate",
    "agglomeration_stages",
    "blockwise_script",
    "chosen_thresholds",
    "extract_fragments",
    "fragment_stages",
    "log_plan",
    "predict",
    "prediction_stages",
    "run_chain",
    "run_stages",
    "segment",
    "segmentation_stages",
]
