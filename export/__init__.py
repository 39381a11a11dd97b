"""Export a student as a bundle, and run bundles.

- ``export.graph``: turn the towers into ONNX graphs.
- ``export.gate``: compare graphs, preprocessing and tokenizer with the student.
- ``export.labels``: labels that a bundle carries.
- ``export.bundle``: put all of this together in a folder.
- ``export.runtime``: run that folder without torch.
"""
