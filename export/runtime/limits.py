"""Limits that several rooms share, in a module that imports nothing."""

# Pillow refuses pictures with more pixels, so other limits can only be lower.
MAX_PIXELS = 178_956_970
