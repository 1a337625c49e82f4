"""From DICOM files to the series of each plane of each knee: header, contrast, side, order of slices, choice, pixels.

May import only `exams` and `sources`. Begin with `series.py`.
"""
