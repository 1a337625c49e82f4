"""HTML pages, tables and figures; each page is one self-contained file that is read from top to bottom.

May import only `evaluation`, `exams`, `sources`, `sources/dicom` and `views`. Begin with `page.py`.
"""
