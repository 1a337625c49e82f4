"""The HTML report of a run: one self-contained file, readable from top to bottom."""

from kneessl.report.content import Arm, Curve, Mistake, Views
from kneessl.report.page import write_report

__all__ = ["Arm", "Curve", "Mistake", "Views", "write_report"]
