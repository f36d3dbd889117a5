"""An object detector: images in, boxes with classes and scores out; from scratch or fine-tuned."""
