"""Measures an exported file on labeled images: python -m projects.transfer.evaluate MODEL.onnx DATA.

numpy, Pillow and onnxruntime; no torch. Core has the program, which all image classifiers share.
"""

from collections.abc import Sequence

from core.inference import OnnxModel
from core.vision.classification_evaluate import Cut, LabeledImages, Sets, run_classifier_evaluation
from projects.transfer.config import Config, ModelFacts
from projects.transfer.synthetic import NUM_SYNTHETIC_TEST, TARGET_CLASSES, draw_images


def generate(config: Config, model: OnnxModel[ModelFacts], test_only: bool) -> Sets:
    """The generated images, the same as in training."""
    num = NUM_SYNTHETIC_TEST + (0 if test_only else config.num_synthetic)
    pixels, labels = draw_images(num, config.seed, model.facts.side, TARGET_CLASSES, "evening")
    train = LabeledImages(labels[NUM_SYNTHETIC_TEST:], lambda row: pixels[NUM_SYNTHETIC_TEST + row])
    test = LabeledImages(labels[:NUM_SYNTHETIC_TEST], lambda row: pixels[row])
    return {"test": test} if test_only else {"train": train, "test": test}


def cuts(config: Config) -> Sequence[Cut]:
    """What the training cuts off, class by class."""
    return [Cut("test", config.test_fraction, by_class=True), Cut("val", config.val_fraction, by_class=True)]


if __name__ == "__main__":
    run_classifier_evaluation(Config, ModelFacts, generate, cuts, val_is_test=True)
