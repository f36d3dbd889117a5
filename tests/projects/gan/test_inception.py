"""FID and KID: only with the weights of their network; the way there is torchmetrics' own, and labeled as theirs."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from core.errors import UserError
from projects.gan import inception
from projects.gan.config import INCEPTION_FILE, Config
from projects.gan.metrics import frechet_distance, gaussian

IGNORED = ("ignore::UserWarning", "ignore::DeprecationWarning", "ignore::FutureWarning")  # of torchmetrics' imports


def test_without_weights_nothing_takes_their_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ATELIER_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr(inception, "find_spec", lambda name: object())
    assert inception.find_weights(Config()) is None
    monkeypatch.setattr(inception, "SHA256_PREFIX", "e3b0c442")  # of nothing
    for folder in (tmp_path / "torch" / "hub" / "checkpoints", tmp_path / "cache", tmp_path / "own"):
        folder.mkdir(parents=True)
        (folder / INCEPTION_FILE).write_bytes(b"")
        config = Config(inception_weights=folder / INCEPTION_FILE if folder.name == "own" else None)
        assert inception.find_weights(config) == folder / INCEPTION_FILE
    (tmp_path / "own" / INCEPTION_FILE).write_bytes(b"a pickle that does harm")
    with pytest.raises(UserError, match="another SHA-256"):
        inception.find_weights(config)
    monkeypatch.setattr(inception, "find_spec", lambda name: None)
    assert inception.find_weights(Config()) is None


class Means(nn.Module):
    """Six numbers of an image in place of Inception's 2,048."""

    num_features, seen = 6, 0

    def __init__(self) -> None:
        super().__init__()
        self.mixed = nn.Linear(6, 6)

    def forward(self, images: Tensor) -> Tensor:
        self.seen += len(images)
        x = images.float() / 255
        with torch.no_grad():
            mixed: Tensor = self.mixed(torch.cat([x.mean((2, 3)), x[:, :, :4].mean((2, 3))], dim=1))
        return mixed


@pytest.mark.filterwarnings(*IGNORED)
def test_torchmetrics_gets_every_image_and_its_fid_is_the_frechet_distance_of_its_features() -> None:
    pytest.importorskip("torchmetrics")
    random = torch.Generator().manual_seed(0)
    real, fake = (torch.randint(0, high, (120, 8, 8, 3), dtype=torch.uint8, generator=random) for high in (256, 200))
    torch.manual_seed(0)
    network = Means()
    result = inception.fid_kid(network, real, fake, torch.device("cpu"))
    assert network.seen == 240  # each image once, for both metrics
    features = [gaussian(network(pixels.permute(0, 3, 1, 2))) for pixels in (real, fake)]
    assert result["fid"] == pytest.approx(frechet_distance(*features), rel=1e-3)
    assert result["kid"] > 0
    assert result["kid_deviation"] >= 0
