"""How good a model is, how sure we are of it, and whether another one is better."""

from kneessl.evaluation.auc import AucDifference, AucInterval, auc_interval, compare_auc
from kneessl.evaluation.metrics import THRESHOLD, Proportion, Summary, summarise

__all__ = [
    "THRESHOLD",
    "AucDifference",
    "AucInterval",
    "Proportion",
    "Summary",
    "auc_interval",
    "compare_auc",
    "summarise",
]
