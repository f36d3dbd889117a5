"""A GAN that generates images like those of its training data: training, ONNX export, inference."""
