"""Tests, in the order of the tree they test; ``miniatures`` are the small inputs they share."""
