"""A run: the only room that knows the recipe and everything that it names."""
