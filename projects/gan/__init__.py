"""A GAN that draws new pictures like those it is shown: training, ONNX export, inference."""
