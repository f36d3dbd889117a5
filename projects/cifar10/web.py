"""Writes a page that runs an exported file in the browser: python -m projects.cifar10.web MODEL.onnx --output DIR.

DIR is a folder for any static host; view.js and compute.js are this project's part of the page.
"""

from core.vision.classification import TASK
from core.web import run_web
from projects.cifar10.config import Config, Facts

if __name__ == "__main__":
    run_web(Config, Facts, TASK)
