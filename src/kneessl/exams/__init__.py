"""The exam folder on disk (MRNet's layout): reading, writing, checking, splitting it by patient.

May import only `errors`, `files` and `workers`. Begin with `folder.py`.
"""
