"""What a model says of one knee of a study and from which evidence, with its page and pictures.

May import any package above it. Begin with `assess.py`.
"""
