"""Classifies images with an exported file: python -m projects.transfer.infer MODEL.onnx IMAGE_OR_FOLDER...

numpy, Pillow and onnxruntime; no torch. Core has the program, which all image classifiers share.
"""

from core.vision.classification import run_inference
from projects.transfer.config import Config, ModelFacts

if __name__ == "__main__":
    run_inference(Config, ModelFacts)
