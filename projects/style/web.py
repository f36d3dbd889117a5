"""Writes a page that runs an exported file in the browser: python -m projects.style.web MODEL.onnx --output DIR.

DIR is a folder for any static host; view.js and compute.js are this project's part of the page.
"""

from core.web import run_web
from projects.style.config import TASK, Config, ModelFacts

if __name__ == "__main__":
    run_web(Config, ModelFacts, TASK)
