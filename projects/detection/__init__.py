"""An object detector: pictures in, boxes with classes and scores out; from scratch or fine-tuned."""
