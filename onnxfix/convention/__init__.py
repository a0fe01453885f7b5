"""What a cache looks like at the boundary of a model: pure Python and numpy, no onnx, no runtime."""
