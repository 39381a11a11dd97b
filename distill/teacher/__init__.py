"""Frozen teachers: one file for each kind, and the cache of their embeddings."""
