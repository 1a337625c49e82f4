"""What becomes exams: DICOM, NIfTI, bare arrays and KneeMRI, turned, resampled and written as an exam folder.

May import only `workers`, `exams`, `sources/dicom` and `sources/archive`. Begin with `importer.py`.
"""
