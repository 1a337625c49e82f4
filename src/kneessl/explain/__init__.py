"""Where a model looks: heat maps, and on synthetic knees whether they point at the lesion.

May import any package above it. Begin with `explain.py`.
"""
