"""From a study as a scanner sends it to an answer that a radiologist can check, and back to the archive.

May import any package above it. Begin with `command.py`.
"""
