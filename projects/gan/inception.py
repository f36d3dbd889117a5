"""FID and KID with torchmetrics, where the weights of their Inception network are at hand.

Heusel et al. 2017 (arXiv 1706.08500), Bińkowski et al. 2018 (arXiv 1801.01401). The network is the one that both are
defined by, in torch-fidelity's form (arXiv 1512.00567); without its weights neither number is given.
"""

import importlib
import os
import warnings
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from core.download import cache_dir, sha256_of
from core.errors import UserError
from projects.gan.config import INCEPTION_FILE, Config

SHA256_PREFIX = "6726825d"  # as the file's name says; it is a pickle, so no other may be loaded
_NUM_FEATURES, _BATCH, _KID_SUBSETS, _KID_SUBSET_SIZE = 2048, 50, 50, 1_000


def find_weights(config: Config) -> Path | None:
    """The weights' file: the given one, or one in the project's or torch's cache, if torch-fidelity is there too.

    Raises UserError for a file with another content.
    """
    home = Path(os.environ.get("TORCH_HOME") or Path.home() / ".cache" / "torch")
    places = [config.inception_weights or cache_dir() / INCEPTION_FILE, home / "hub" / "checkpoints" / INCEPTION_FILE]
    usable = find_spec("torch_fidelity") is not None
    path = next((path for path in places if usable and path.is_file()), None)
    if path is not None and not sha256_of(path).startswith(SHA256_PREFIX):
        todo = f"give torch-fidelity's {INCEPTION_FILE}"
        raise UserError("not the weights of FID's Inception", f"{path} (another SHA-256)", todo)
    return path


def build_inception(weights: Path) -> nn.Module:
    """The network: images uint8 [N, 3, H, W] → features [N, 2048]."""
    fid: Any = importlib.import_module("torchmetrics.image.fid")
    network: nn.Module = fid.NoTrainInceptionV3(
        name="inception-v3-compat", features_list=[str(_NUM_FEATURES)], feature_extractor_weights_path=str(weights)
    )
    return network


def fid_kid(network: nn.Module, real: Tensor, fake: Tensor, device: torch.device) -> dict[str, float]:
    """FID, and KID with its deviation over subsets; real, fake: uint8 [N, S, S, C], on the CPU."""
    cached = _CachedFeatures(network.to(device))
    fid: Any = importlib.import_module("torchmetrics.image.fid").FrechetInceptionDistance(cached)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the memory that KID takes
        kid_class: Any = importlib.import_module("torchmetrics.image.kid").KernelInceptionDistance
        kid: Any = kid_class(cached, subsets=_KID_SUBSETS, subset_size=min(_KID_SUBSET_SIZE, len(real), len(fake)))
    fid, kid = fid.to(device), kid.to(device)
    for pixels, is_real in ((real, True), (fake, False)):
        for part in torch.split(pixels, _BATCH):
            images = part.permute(0, 3, 1, 2).expand(-1, 3, -1, -1).to(device)
            fid.update(images, real=is_real)
            kid.update(images, real=is_real)
    torch.manual_seed(0)  # KID draws its subsets
    mean, deviation = kid.compute()
    return {"fid": float(fid.compute()), "kid": float(mean), "kid_deviation": float(deviation)}


class _CachedFeatures(nn.Module):
    """A network that keeps the last batch's features, because both metrics ask for them."""

    def __init__(self, network: nn.Module, num_features: int = _NUM_FEATURES) -> None:
        super().__init__()
        self.network, self.num_features = network, int(getattr(network, "num_features", num_features))
        self._images: Tensor | None = None
        self._features: Tensor | None = None

    def forward(self, images: Tensor) -> Tensor:
        """The features, [N, num_features]."""
        if self._features is None or images is not self._images:
            self._images, self._features = images, self.network(images)
        return self._features
