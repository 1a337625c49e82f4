"""An answer as DICOM objects that an archive takes: a structured report and a secondary capture.

May import any package above it. Begin with `structured.py`.
"""
