"""Scores of segmentations against labels: of arrays, of runs, of files."""

from .certainty import StoredCertainty, stored_certainty
from .contingency import contingency_table
from .errors import SegmentationError, read_errors
from .images import mean_image_scores
from .instances import PanopticQuality, aggregated_jaccard_index, dice, f1_score, panoptic_quality
from .metrics import VariationOfInformation, adapted_rand_error, variation_of_information
from .overlaps import LabelRules, count_overlaps, prepare_labels
from .runs import best_threshold, check_run, evaluate, find_truth
from .score_files import open_pair, score_volumes
from .skeletons import expected_run_length
from .sweep import SCORE_TITLES, best_of, common_scores, format_score, loss_of, score_text, sweep_thresholds

__all__ = [
    "SCORE_TITLES",
    "LabelRules",
    "PanopticQuality",
    "SegmentationError",
    "StoredCertainty",
    "VariationOfInformation",
    "adapted_rand_error",
    "aggregated_jaccard_index",
    "best_of",
    "best_threshold",
    "check_run",
    "common_scores",
    "contingency_table",
    "count_overlaps",
    "dice",
    "evaluate",
    "expected_run_length",
    "f1_score",
    "find_truth",
    "format_score",
    "loss_of",
    "mean_image_scores",
    "open_pair",
    "panoptic_quality",
    "prepare_labels",
    "read_errors",
    "score_text",
    "score_volumes",
    "stored_certainty",
    "sweep_thresholds",
    "variation_of_information",
]
