"""From a study as a scanner sends it to an answer that a reader can check, and back to the archive."""
