"""The HTML reports: each one self-contained file, readable from top to bottom."""
