"""Limits that several parts share, kept apart from libraries that take time to load."""

# The most pixels that Pillow decodes by default; other limits can only be lower.
MAX_PIXELS = 178_956_970
