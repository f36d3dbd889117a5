"""A run's classifier from its folder alone: what was trained from a checkpoint, the frozen from a file."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from core.errors import UserError
from projects.transfer.augment import Look
from projects.transfer.backbone import build_backbone, feature_size, without_head
from projects.transfer.config import Config
from projects.transfer.model import Classifier
from projects.transfer.source import FILE_NAME, Source
from projects.transfer.weights import from_bytes


def build_classifier(source: Source, num_classes: int, image_size: int, dropout: float) -> Classifier:
    """The backbone with its weights, and a new head. Raises UserError for a size that the backbone does not take."""
    network, head = build_backbone(source.architecture, source.num_classes)
    backbone = without_head(network, head)
    if source.weights is not None:
        backbone.load_state_dict(dict(source.weights))
    return Classifier(backbone, feature_size(backbone, image_size), num_classes, dropout)


def restored(run_dir: Path, facts: Mapping[str, Any], config: Config, state: Mapping[str, Any]) -> Classifier:
    """The classifier of a run with a checkpoint's weights, averaged where the run averages; in evaluation mode."""
    weights = from_bytes(run_dir / FILE_NAME, facts["weights_sha256"]) if config.strategy == "head" else None
    source = Source(facts["model"], facts["num_source_classes"], facts["image_size"], None, None, weights, "")
    network = build_classifier(source, len(facts["classes"]), facts["image_size"], config.dropout)
    trained = network.head if config.strategy == "head" else network
    trained.load_state_dict(trained_weights(state))
    return network.eval()


def trained_weights(state: Mapping[str, Any]) -> dict[str, Tensor]:
    """What a checkpoint holds of the network, averaged where there is an average."""
    weights: dict[str, Tensor] = state["ema"]["module"] if "ema" in state else state["model"]
    return weights


def look_of(facts: Mapping[str, Any]) -> Look:
    """How the run's network looks at pictures."""
    try:
        return Look(facts["image_size"], facts["side"], tuple(facts["mean"]), tuple(facts["std"]))
    except KeyError as error:
        raise UserError("not a run of this project", f"{error} is not in its run.json", "give another") from error
