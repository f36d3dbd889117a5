"""Measures an exported file on labeled images: python -m projects.cifar10.evaluate MODEL.onnx DATA.

numpy, Pillow and onnxruntime; no torch. Core has the program, which all image classifiers share.
"""

from core.inference import OnnxModel
from core.vision.classification_evaluate import Cut, LabeledImages, Sets, run_classifier_evaluation
from projects.cifar10.config import Config, Facts


def generate(config: Config, model: OnnxModel[Facts], test_only: bool) -> Sets:
    """The generated images, the same as in training."""
    from projects.cifar10.synthetic import draw_images

    num_test = config.num_synthetic // 6
    num = num_test + (0 if test_only else config.num_synthetic)
    pixels, labels = draw_images(num, config.seed, config.image_size)
    test = LabeledImages(labels[:num_test], lambda row: pixels[row])
    train = LabeledImages(labels[num_test:], lambda row: pixels[num_test + row])
    return {"test": test} if test_only else {"train": train, "test": test}


if __name__ == "__main__":
    run_classifier_evaluation(Config, Facts, generate, lambda config: [Cut("val", config.val_fraction)])
