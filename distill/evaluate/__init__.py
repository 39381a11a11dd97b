"""Teacher and student, measured side by side on the same samples."""
