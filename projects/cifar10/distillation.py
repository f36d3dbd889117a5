"""Knowledge distillation: a network learns from the labels and from the probabilities of a trained one, its teacher
(Hinton, Vinyals and Dean 2015, "Distilling the Knowledge in a Neural Network", arXiv 1503.02531)."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from core.errors import UserError
from core.stored_run import load_run
from projects.cifar10.config import Config, Facts
from projects.cifar10.model import build_model


@dataclass(frozen=True)
class Distillation:
    """teacher: the trained network, in evaluation mode. weight: its share of the loss. temperature: divides the logits
    of both, so that small probabilities count as well."""

    teacher: nn.Module
    weight: float
    temperature: float

    @torch.no_grad()
    def targets(self, images: Tensor) -> Tensor:
        """Images [N, 3, H, W], normalized → logarithms of the teacher's softened probabilities, float32 [N, C]."""
        targets: Tensor = (self.teacher(images).float() / self.temperature).log_softmax(1)
        return targets

    def mixed(self, loss: Tensor, logits: Tensor, targets: Tensor) -> Tensor:
        """The loss to minimize. loss: that of the labels. logits: float32 [N, C].

        The teacher's part is the Kullback-Leibler divergence from the targets, times the squared temperature, which
        keeps the gradient's size (section 2 of the paper).
        """
        own = (logits / self.temperature).log_softmax(1)
        apart = F.kl_div(own, targets, log_target=True, reduction="batchmean")
        return (1 - self.weight) * loss + self.weight * self.temperature**2 * apart


def load_teacher(config: Config, facts: Facts, device: torch.device) -> Distillation | None:
    """The teacher that the settings name, if any, with the best weights of its run.

    Raises UserError where it is no run of this project, or was trained for other classes or images.
    """
    if config.teacher is None:
        return None
    run = load_run(config.teacher, "best", Config, Facts)
    for what, its, own in (
        ("classes", run.facts.classes, facts.classes),
        ("image size", run.config.image_size, config.image_size),
        ("mean and deviation of the images", (run.facts.mean, run.facts.std), (facts.mean, facts.std)),
    ):
        if its != own:
            raise UserError(
                "the teacher learned something else",
                f"--teacher {config.teacher}: other {what}",
                "train it on this data",
            )
    teacher = build_model(run.facts.model, len(facts.classes))
    teacher.load_state_dict(run.weights())
    teacher = teacher.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    return Distillation(teacher.eval().requires_grad_(False), config.teacher_weight, config.temperature)
