"""Is it good? FID, accuracies, precision and recall, memorisation: a metric takes images.

`judge_report` is loaded here and nowhere else, so that nothing is ever trained, searched or chosen
against the judge that scores the tables.
"""

from fastgen_course.metrics.accuracy import (
    Accuracies,
    accuracies,
    digit_accuracy,
    exact_accuracy,
    found_slots,
    garment_accuracy,
    read_slots,
    slot_accuracy,
)
from fastgen_course.metrics.checks import MetricError
from fastgen_course.metrics.delivered import delivered_quality
from fastgen_course.metrics.features import judge_features
from fastgen_course.metrics.frechet import Moments, fid, frechet_distance, gaussian_moments
from fastgen_course.metrics.intervals import Estimate, bootstrap_interval
from fastgen_course.metrics.neighbours import (
    Neighbours,
    PrecisionRecall,
    nearest_training_neighbour,
    precision_recall,
)
from fastgen_course.metrics.reference import (
    caption_list,
    caption_texts,
    heldout_list,
    real_images,
    reference_features,
    reference_images,
    uniform_noise,
)
from fastgen_course.metrics.report import Report, Spread, evaluate, floor_and_ceiling

__all__ = [
    "Accuracies",
    "Estimate",
    "MetricError",
    "Moments",
    "Neighbours",
    "PrecisionRecall",
    "Report",
    "Spread",
    "accuracies",
    "bootstrap_interval",
    "caption_list",
    "caption_texts",
    "delivered_quality",
    "digit_accuracy",
    "evaluate",
    "exact_accuracy",
    "fid",
    "floor_and_ceiling",
    "found_slots",
    "frechet_distance",
    "garment_accuracy",
    "gaussian_moments",
    "heldout_list",
    "judge_features",
    "nearest_training_neighbour",
    "precision_recall",
    "read_slots",
    "real_images",
    "reference_features",
    "reference_images",
    "slot_accuracy",
    "uniform_noise",
]
