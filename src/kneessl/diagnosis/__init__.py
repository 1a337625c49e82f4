"""From a pre-trained encoder to a classifier, its predictions, and what it looked at."""
