"""Synthetic knees with labels: shapes in mm -> anatomy -> painted tissues and lesions -> scanner -> exam folder.

May import only `workers` and `exams`. Begin with `command.py`.
"""
