"""Whether a reconstruction is true: controls, lesions, comparison, statistics."""
