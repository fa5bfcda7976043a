"""Scores of segmentations against labels: of arrays, of runs, of files."""

from .files import open_pair, score_volumes
from .metrics import VariationOfInformation, adapted_rand_error, variation_of_information
from .overlaps import LabelRules, count_overlaps, prepare_labels
from .runs import best_threshold, check_run, evaluate
from .skeletons import expected_run_length
from .sweep import sweep_thresholds

__all__ = [
    "LabelRules",
    "VariationOfInformation",
    "adapted_rand_error",
    "best_threshold",
    "check_run",
    "count_overlaps",
    "evaluate",
    "expected_run_length",
    "open_pair",
    "prepare_labels",
    "score_volumes",
    "sweep_thresholds",
    "variation_of_information",
]
