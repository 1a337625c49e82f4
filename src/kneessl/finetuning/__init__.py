"""The training of classifiers on labelled exams, each network by the recipe that it was published with.

May import any package above it. Begin with `finetune.py`.
"""
