"""What the run folder of a fine-tuned model is: out-of-fold predictions, what is locked, prediction, fusion of planes.

May import any package above it. Begin with `model.py`.
"""
