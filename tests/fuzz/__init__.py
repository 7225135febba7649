"""Valid files of every reader, spoilt by a seed: ``python -m tests.fuzz``."""
