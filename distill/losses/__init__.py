"""The loss terms, one file for each family, their catalogue and their weighted sum."""
