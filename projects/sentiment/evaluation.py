"""How right the classifier is: after every pass, and at the end on the test texts."""

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from core import distributed
from core.accelerator import Accelerator
from core.data import Loader
from core.distributed import World
from core.evaluation import evaluating
from projects.sentiment.calibration import calibration_error
from projects.sentiment.config import Config
from projects.sentiment.data import Batch, TextSet, evaluation_loader, evaluation_rows
from projects.sentiment.model import Ensemble, mixed
from projects.sentiment.temperature import fit_mixture


def evaluate(loader: Loader[Batch], network: Ensemble, trained: Ensemble, accelerator: Accelerator) -> dict[str, float]:
    """Accuracy, cross-entropy, and calibration error over all texts of a loader, over all ranks.

    Sets the temperature and the n-grams' share of both networks: the evaluated one, and the trained one.
    """
    parts = distributed.gather(predictions(loader, network, accelerator))
    words, ngrams, labels = (torch.cat([part[k] for part in parts]) for k in range(3))
    share, temperature = fit_mixture(words, ngrams, labels, max_share=0.0 if network.ngrams is None else 1.0)
    for module in (network, trained):
        module.temperature.fill_(temperature)
        module.share.fill_(share)
    logits = mixed(words, ngrams, share)
    return {
        "accuracy": accuracy(logits, labels),
        "loss": float(F.cross_entropy(logits.double(), labels)),
        "calibrated_loss": float(F.cross_entropy(logits.double() / temperature, labels)),
        "calibration_error": calibration_error((logits / temperature).softmax(1).numpy(), labels.numpy()),
        "ngrams_share": share,
    }


def predictions(loader: Loader[Batch], network: Ensemble, accelerator: Accelerator) -> tuple[Tensor, Tensor, Tensor]:
    """Logits of the members and of the n-grams, float32 [N, C] each, and labels [N], on the CPU, in the loader's
    order."""
    words, ngrams, labels = [], [], []
    with evaluating(network):
        for batch in loader.batches(epoch=0):
            ids, targets = accelerator.to_device(batch)
            with accelerator.autocast():
                parts = network.parts(ids)
            words.append(parts[0].float())
            ngrams.append(parts[1].float())
            labels.append(targets)
    return torch.cat(words).cpu().clone(), torch.cat(ngrams).cpu().clone(), torch.cat(labels).cpu()


def predict(texts: TextSet, *, network: Ensemble, config: Config, accelerator: Accelerator) -> tuple[Tensor, Tensor]:
    """Logits of the members and of the n-grams, float32 [N, C] each, of texts in their own order; for a single process,
    when other ranks have left."""
    *served, _ = predictions(evaluation_loader(texts, config, World()), network, accelerator)
    places = evaluation_rows(texts).argsort()
    words, ngrams = (logits[places] for logits in served)
    return words, ngrams


def scores(
    words: Tensor, ngrams: Tensor, labels: NDArray[np.int64], network: Ensemble, name: str
) -> tuple[dict[str, float], NDArray[np.float32], NDArray[np.float32]]:
    """The numbers of a run on the split of that name; probabilities float32 [N, C] without the temperature and with it.

    words, ngrams: logits [N, C] of the members and of the n-grams, whose accuracies alone are among the numbers.
    """
    share, temperature = float(network.share), float(network.temperature)
    logits = mixed(words, ngrams, share)
    uncalibrated, probabilities = ((logits / t).softmax(1).numpy() for t in (1.0, temperature))
    numbers = {
        f"{name}_accuracy": accuracy(logits, labels),
        f"num_{name}": len(labels),
        "calibration_error": calibration_error(probabilities, labels),
        "temperature": temperature,
    }
    if network.ngrams is not None:
        alone = {"network": words, "ngrams": ngrams}
        numbers |= {f"{part}_alone_{name}_accuracy": accuracy(its, labels) for part, its in alone.items()}
        numbers["ngrams_share"] = share
    return numbers, uncalibrated, probabilities


def accuracy(logits: Tensor, labels: Tensor | NDArray[np.int64]) -> float:
    """Share of texts whose label has the largest logit."""
    return float((logits.argmax(1) == torch.as_tensor(labels)).double().mean())
