"""What a user writes: sections by topic, read and checked without torch."""
