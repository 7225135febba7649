"""Mappers: betas in, embeddings out; one module per kind."""
