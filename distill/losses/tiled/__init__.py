"""Logits in tiles: losses whose matrices are never held whole."""
