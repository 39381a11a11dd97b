"""The cache of teachers' embeddings: building it, and looking embeddings up."""
