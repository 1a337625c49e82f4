"""What every training needs (run folder, trainer, optimisers, processes), and the pre-training of any method.

May import any package above it. Begin with `pretrain.py`.
"""
