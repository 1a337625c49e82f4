"""HTML pages, tables and figures; each page is one self-contained file that is read from top to bottom.

It knows arrays and words, no exam folder and no model. May import only `evaluation` and `exams` (the type of a plane).
Begin with `page.py`.
"""
