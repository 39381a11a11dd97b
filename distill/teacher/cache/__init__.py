"""The cache of the teachers' embeddings: building it, and looking embeddings up."""
