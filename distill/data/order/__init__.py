"""The order of the samples, as a pure function of seed and step."""
