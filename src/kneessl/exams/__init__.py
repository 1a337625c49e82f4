"""The exam folder on disk (MRNet's layout): reading, writing, checking, splitting it by patient.

May import only `errors` and `files`. Begin with `folder.py`.
"""
