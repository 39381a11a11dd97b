"""From a trained student to a bundle: ONNX graphs, verified, and the runtime that reads them."""
