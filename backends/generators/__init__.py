"""Embeddings in, pictures out: one file per generator."""
