"""Studies from an Orthanc archive, as they arrive, and answers back into it.

May import any package above it. Begin with `watch.py`.
"""
