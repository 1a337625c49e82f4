"""From a series on disk to augmented views, in batches, on the training device.

May import only `exams`. Begin with `augment.py`.
"""
