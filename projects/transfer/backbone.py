"""The pretrained backbone of a run: what it is built from, and its copy in the run folder.

What pretrained.py found goes into the run folder as backbone.safetensors, so that a resumed run and an export need no
other place. A run of this project gives its own backbone; one of another project the file network.safetensors in its
folder.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import safetensors.torch
from torch import nn

from core.errors import UserError
from core.files import write_atomically
from core.stored_run import StoredRun
from core.vision import network_file
from projects.transfer.config import Config, Facts
from projects.transfer.model import Classifier, build_classifier, build_network, name_of_head, without_head

FILE_NAME = "backbone.safetensors"


@dataclass(frozen=True)
class Source:
    """What a backbone is built from.

    architecture: timm:NAME, torchvision:NAME, small, or run:NAME. num_classes: of the head that is taken off. mean,
    std: what its images are normalized with; None for those of the new images. content: of backbone.safetensors, the
    weights without the head, or for run:NAME the network's whole file; None for none. is_random: whether training
    begins with random weights. origin: where the weights are from, for people.
    """

    architecture: str
    num_classes: int
    image_size: int
    mean: Sequence[float] | None
    std: Sequence[float] | None
    content: bytes | None
    is_random: bool
    origin: str

    @property
    def sha256(self) -> str | None:
        """Of the content."""
        return None if self.content is None else hashlib.sha256(self.content).hexdigest()

    def build(self) -> nn.Module:
        """The backbone, images [N, 3, S, S] → features [N, F], with its weights."""
        if self.architecture.startswith("run:"):
            return self._build_stored()
        network, head = build_network(self.architecture, self.num_classes)
        backbone = without_head(network, head)
        if self.content is not None and not self.is_random:
            backbone.load_state_dict(safetensors.torch.load(self.content))
        return backbone

    def _build_stored(self) -> nn.Module:
        """The backbone from a network's file; random weights are PyTorch's own, and all of them are trained."""
        assert self.content is not None
        network = network_file.network_from(self.content, self.architecture).network
        if self.is_random:
            for module in network.modules():
                if callable(reset := getattr(module, "reset_parameters", None)):
                    reset()
            network.requires_grad_(True)
        return without_head(network, name_of_head(network, self.num_classes, self.architecture))


def keep(source: Source, run_dir: Path) -> None:
    """Puts the backbone into the run folder, which needs no other place then."""
    if source.content is not None and not (run_dir / FILE_NAME).exists():
        write_atomically(run_dir / FILE_NAME, source.content)


def kept_source(run_dir: Path, facts: Facts, config: Config) -> Source:
    """The backbone in a run folder. Raises UserError where it is missing or was changed."""
    content = None if facts.weights_sha256 is None else kept_content(run_dir, facts.weights_sha256)
    mean, std = (None, None) if config.from_scratch else (facts.mean, facts.std)
    numbers = facts.num_source_classes, facts.source_image_size
    return Source(facts.model, *numbers, mean, std, content, config.from_scratch, facts.weights)


def kept_content(run_dir: Path, sha256: str | None) -> bytes:
    """The run folder's backbone.safetensors. Raises UserError for one that is missing or not as it was written."""
    path, todo = run_dir / FILE_NAME, "put it back, or start a new run"
    try:
        content = path.read_bytes()
    except OSError as error:
        where = f"{path} ({(error.strerror or 'unreadable').lower()})"
        raise UserError("the run's backbone is missing", where, todo) from error
    if hashlib.sha256(content).hexdigest() != sha256:
        raise UserError("the run's backbone was changed", f"{path}: digest mismatch", todo)
    return content


def load_classifier(run: StoredRun[Config, Facts]) -> Classifier:
    """The classifier of a run with a checkpoint's weights, averaged where the run averages; in evaluation mode."""
    facts, config = run.facts, run.config
    is_frozen = config.strategy == "head"
    if is_frozen or facts.model.startswith("run:"):
        source = kept_source(run.path, facts, config)
    else:  # all weights stand in the checkpoint
        numbers = facts.num_source_classes, facts.source_image_size
        source = Source(facts.model, *numbers, facts.mean, facts.std, None, is_random=True, origin=facts.weights)
    network = build_classifier(source.build(), len(facts.classes), facts.image_size, config.dropout)
    (network.head if is_frozen else network).load_state_dict(run.weights())
    return network.eval()
