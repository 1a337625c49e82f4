"""Self-supervised learning for knee MRI."""

from importlib.metadata import version

__version__ = version("kneessl")
