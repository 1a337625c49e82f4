"""How good a model is, how sure we are of it, and whether another one is better: pure functions of arrays.

May import only `errors`. Begin with `auc.py`.
"""

from kneessl.evaluation.auc import AucDifference, AucInterval, auc_interval, compare_auc, mean_roc
from kneessl.evaluation.comparison import (
    ComparedArm,
    ComparisonRow,
    MeanAccuracy,
    MeanAuc,
    compare_arms,
    holm,
    order_like,
    ranked,
)
from kneessl.evaluation.metrics import THRESHOLD, Proportion, Summary, summarise

__all__ = [
    "THRESHOLD",
    "AucDifference",
    "AucInterval",
    "ComparedArm",
    "ComparisonRow",
    "MeanAccuracy",
    "MeanAuc",
    "Proportion",
    "Summary",
    "auc_interval",
    "compare_arms",
    "compare_auc",
    "holm",
    "mean_roc",
    "order_like",
    "ranked",
    "summarise",
]
