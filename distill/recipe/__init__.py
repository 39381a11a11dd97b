"""The recipe that a user writes: sections by topic, read and checked without torch."""
