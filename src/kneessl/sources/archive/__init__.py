"""Imports as large as an archive: an index of all headers on disk, study by study in several processes, and labels.

May import only `workers`, `exams`, `sources` and `sources/dicom`. Begin with `steps.py`.
"""
