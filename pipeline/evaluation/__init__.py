"""Scores of segmentations against labels: of arrays, of runs, of files."""

from .contingency import contingency_table
from .images import mean_image_scores
from .instances import PanopticQuality, aggregated_jaccard_index, dice, f1_score, panoptic_quality
from .metrics import VariationOfInformation, adapted_rand_error, cremi_score, variation_of_information
from .overlaps import LabelRules, count_overlaps, prepare_labels
from .run_skeletons import TABLE as SKELETON_TABLE
from .runs import best_threshold, check_run, evaluate
from .score_files import open_pair, score_volumes
from .skeleton_files import open_skeletons
from .skeleton_scores import SkeletonOptions, rows_of, score_skeletons
from .skeletons import RunLengths, Skeletons, expected_run_length, run_lengths
from .sweep import SCORE_TITLES, best_of, common_scores, format_score, loss_of, score_text, sweep_thresholds
from .truth import find_test, find_truth

__all__ = [
    "SCORE_TITLES",
    "SKELETON_TABLE",
    "LabelRules",
    "PanopticQuality",
    "RunLengths",
    "SkeletonOptions",
    "Skeletons",
    "VariationOfInformation",
    "adapted_rand_error",
    "aggregated_jaccard_index",
    "best_of",
    "best_threshold",
    "check_run",
    "common_scores",
    "contingency_table",
    "count_overlaps",
    "cremi_score",
    "dice",
    "evaluate",
    "expected_run_length",
    "f1_score",
    "find_test",
    "find_truth",
    "format_score",
    "loss_of",
    "mean_image_scores",
    "open_pair",
    "open_skeletons",
    "panoptic_quality",
    "prepare_labels",
    "rows_of",
    "run_lengths",
    "score_skeletons",
    "score_text",
    "score_volumes",
    "sweep_thresholds",
    "variation_of_information",
]
