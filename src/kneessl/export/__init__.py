"""A model for use elsewhere: safetensors, ONNX, MONAI bundle, each checked as it is written.

May import any package above it. Begin with `export.py`.
"""
