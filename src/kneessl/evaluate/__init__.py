"""Evaluation of fine-tuned models on exams kept apart: predictions, figures, report.

May import any package above it. Begin with `evaluate.py`.
"""
