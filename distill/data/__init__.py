"""What is trained on: samples behind an index, and which of them make up a step."""
