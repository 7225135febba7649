"""Images and texts to embeddings."""
