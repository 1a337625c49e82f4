"""The HTML reports: each one self-contained file, readable from top to bottom."""

from kneessl.report.answer_page import write_answer_page
from kneessl.report.comparison_page import write_comparison_page
from kneessl.report.comparison_table import terminal_table, write_comparison_csv
from kneessl.report.content import Answer, Arm, Curve, Evaluated, Finding, KeyPicture, Mistake, Sheet, Views
from kneessl.report.evaluation_page import write_evaluation_page
from kneessl.report.page import write_report

__all__ = [
    "Answer",
    "Arm",
    "Curve",
    "Evaluated",
    "Finding",
    "KeyPicture",
    "Mistake",
    "Sheet",
    "Views",
    "terminal_table",
    "write_answer_page",
    "write_comparison_csv",
    "write_comparison_page",
    "write_evaluation_page",
    "write_report",
]
