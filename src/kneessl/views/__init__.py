"""From a series on disk to augmented views on the training device."""
