"""The data to train on: samples behind an index, and the choice of samples for each step."""
