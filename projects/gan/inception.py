"""FID and KID with torchmetrics, where the weights of their Inception network are at hand.

Heusel et al. 2017 (arXiv 1706.08500), Bińkowski et al. 2018 (arXiv 1801.01401). The network is the one that both are
defined by, as torch-fidelity carries it (arXiv 1512.00567); no other takes its place, and without its weights neither
number is given.
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

SHA256_BEGINS = "6726825d"  # as the file's name says; it is a pickle, so no other may be loaded
FEATURES, AT_ONCE, KID_SUBSETS, KID_SUBSET = 2048, 50, 50, 1_000


def find_weights(config: Config) -> Path | None:
    """The weights' file: the given one, or one in the project's or torch's cache, if torch-fidelity is there too.

    Raises UserError for a file with another content.
    """
    home = Path(os.environ.get("TORCH_HOME") or Path.home() / ".cache" / "torch")
    places = [config.inception_weights or cache_dir() / INCEPTION_FILE, home / "hub" / "checkpoints" / INCEPTION_FILE]
    usable = all(find_spec(name) is not None for name in ("torchmetrics", "torch_fidelity"))
    path = next((path for path in places if usable and path.is_file()), None)
    if path is not None and not sha256_of(path).startswith(SHA256_BEGINS):
        todo = f"give torch-fidelity's {INCEPTION_FILE}"
        raise UserError("not the weights of FID's Inception", f"{path} (another SHA-256)", todo)
    return path


def build_inception(weights: Path) -> nn.Module:
    """The network: pictures uint8 [N, 3, H, W] → features [N, 2048]."""
    fid: Any = importlib.import_module("torchmetrics.image.fid")
    network: nn.Module = fid.NoTrainInceptionV3(
        name="inception-v3-compat", features_list=[str(FEATURES)], feature_extractor_weights_path=str(weights)
    )
    return network


def fid_kid(network: nn.Module, real: Tensor, fake: Tensor, device: torch.device) -> dict[str, float]:
    """FID, and KID with its deviation over subsets; real, fake: uint8 [N, S, S, C], on the CPU."""
    once = Once(network.to(device))
    fid: Any = importlib.import_module("torchmetrics.image.fid").FrechetInceptionDistance(once)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the memory that KID takes
        kid_class: Any = importlib.import_module("torchmetrics.image.kid").KernelInceptionDistance
        kid: Any = kid_class(once, subsets=KID_SUBSETS, subset_size=min(KID_SUBSET, len(real), len(fake)))
    fid, kid = fid.to(device), kid.to(device)
    for pixels, is_real in ((real, True), (fake, False)):
        for part in torch.split(pixels, AT_ONCE):
            pictures = part.permute(0, 3, 1, 2).expand(-1, 3, -1, -1).to(device)
            fid.update(pictures, real=is_real)
            kid.update(pictures, real=is_real)
    torch.manual_seed(0)  # KID draws its subsets
    mean, deviation = kid.compute()
    return {"fid": float(fid.compute()), "kid": float(mean), "kid_deviation": float(deviation)}


class Once(nn.Module):
    """A network that computes a batch's features once, though both metrics ask for them."""

    def __init__(self, network: nn.Module, num_features: int = FEATURES) -> None:
        super().__init__()
        self.network, self.num_features = network, int(getattr(network, "num_features", num_features))
        self._pictures: Tensor | None = None
        self._features: Tensor | None = None

    def forward(self, pictures: Tensor) -> Tensor:
        """The features, [N, num_features]."""
        if self._features is None or pictures is not self._pictures:
            self._pictures, self._features = pictures, self.network(pictures)
        return self._features
