"""WebDataset tars: read with random access, and written."""
