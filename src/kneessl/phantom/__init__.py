"""Synthetic knees with labels: shapes in mm -> anatomy -> painted tissues and lesions -> scanner -> files.

The files are an exam folder, or a hospital's archive of DICOM studies: `dicom_archive.py` writes it, `dicom_study.py`
says what a study is, `vendors.py` what each vendor does.
May import only `workers` and `exams`. Begin with `command.py`.
"""
