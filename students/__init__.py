"""The student: a compact image tower and a compact text tower."""
