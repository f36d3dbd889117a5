"""The detectors by name: the small one, its pyramid on a pretrained backbone, and torchvision's."""

from projects.detection.config import Config
from projects.detection.detector import Detector
from projects.detection.model import Small


def build_model(config: Config, num_classes: int, *, initial_weights: bool) -> Detector:
    """The detector that the settings name.

    initial_weights: whether to load the weights that they name, for a new training.
    """
    detector: Detector
    if config.backbone != "none":
        from projects.detection.pretrained import build_pretrained

        detector = build_pretrained(config, num_classes, initial_weights=initial_weights and config.weights == "none")
    elif config.model == "small":
        detector = Small(num_classes)
    else:
        from projects.detection.torchvision_models import build_torchvision

        detector = build_torchvision(config, num_classes)
    if initial_weights and config.weights != "none":
        from projects.detection.weights import load_weights

        load_weights(detector, config)
    return detector
