"""The report: JSON, a page, and tables for the terminal."""
