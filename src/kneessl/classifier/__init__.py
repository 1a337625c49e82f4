"""From the feature maps of an exam's slices to one logit for each task, and what each position adds to it.

May import only `nets`. Begin with `heads.py`.
"""
