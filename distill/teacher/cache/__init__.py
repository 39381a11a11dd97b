"""The teacher's embeddings on disk."""
