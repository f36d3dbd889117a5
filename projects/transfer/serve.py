"""Serves exported files over HTTP: python -m projects.transfer.serve MODEL.onnx, then open http://127.0.0.1:8000.

numpy, Pillow, onnxruntime and FastAPI; no torch. Core has the program, which all image classifiers share.
"""

from core.serving.program import run_serving
from core.vision.classification_serving import classifier_service
from projects.transfer.config import Config, ModelFacts

SERVICE = classifier_service(ModelFacts)

if __name__ == "__main__":
    run_serving(Config, SERVICE)
