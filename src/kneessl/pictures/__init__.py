"""Photographs in place of exams: long-tailed CIFAR-10 (chapter 3 of the thesis), and linear evaluation on any images.

May import any package above it. Begin with `imbalance.py`.
"""
