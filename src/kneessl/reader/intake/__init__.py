"""A study taken in: from a folder, a file, a zip or a DICOMweb archive, within limits of size and number.

May import only `sources`. Begin with `intake.py`.
"""
