"""Backbones come with the right weights and constants from timm, torchvision and runs, or are refused in one line."""

import hashlib
import http.server
import io
import json
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from core import checkpoint
from core.accelerator import Accelerator
from core.errors import UserError
from core.plain import from_plain
from core.vision.packaged_network import PACKAGED
from projects.transfer.backbone import Source, keep, kept_source
from projects.transfer.config import Facts
from projects.transfer.model import build_network, feature_size, without_head
from projects.transfer.pretrained import find_source
from tests import forked
from tests.projects.transfer.conftest import main, settings

timm = pytest.importorskip("timm")
torchvision = pytest.importorskip("torchvision")

Serve = Callable[[dict[str, bytes]], str]


def find(*argv: object) -> Source:
    accelerator = Accelerator(device="cpu", precision="fp32")
    return find_source(settings(*argv), accelerator, None)


def made(model: nn.Module) -> dict[str, Tensor]:
    """A model's weights with norm statistics that are not those it begins with."""
    generator = torch.Generator().manual_seed(1)
    state: dict[str, Tensor] = model.state_dict()
    for name, tensor in state.items():
        if name.endswith("running_mean"):
            tensor.copy_(torch.randn(tensor.shape, generator=generator))
    return {name: tensor.clone() for name, tensor in state.items()}


def assert_all_but_the_head(source: Source, weights: dict[str, Tensor], head: str) -> None:
    own = source.build().state_dict()
    assert own.keys() == {name for name in weights if not name.startswith(f"{head}.")}
    assert all(torch.equal(tensor, weights[name]) for name, tensor in own.items())


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_a_resnet18_of_timm_takes_a_file_with_timms_names_shapes_and_normalization(suffix: str, tmp_path: Path) -> None:
    model = timm.create_model("resnet18")
    weights, path = made(model), tmp_path / f"resnet18{suffix}"
    if suffix == ".pth":
        torch.save({"state_dict": weights}, path)
    else:
        save_file(weights, path)
    source = find("--backbone", "timm:resnet18", "--weights", path)
    assert_all_but_the_head(source, weights, "fc")
    assert (source.mean, source.std) == (model.pretrained_cfg["mean"], model.pretrained_cfg["std"])
    assert (source.image_size, source.num_classes) == (224, 1000)
    network, head = build_network("timm:resnet18", 1000)
    network.load_state_dict(weights)
    images = torch.randn(2, 3, 64, 64)
    model.load_state_dict(weights)
    with torch.no_grad():
        features = without_head(network, head).eval()(images)
        assert torch.equal(features, model.eval().forward_head(model.forward_features(images), pre_logits=True))


@pytest.fixture
def hub_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty Hugging Face cache of its own, and an empty one of this project."""
    from huggingface_hub import constants

    cache = tmp_path / "hub"
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setenv("ATELIER_CACHE", str(tmp_path / "atelier"))
    return cache


def test_weights_in_the_usual_cache_of_timm_are_used_without_a_network(hub_cache: Path) -> None:
    weights = made(timm.create_model("test_resnet"))
    folder = hub_cache / "models--timm--test_resnet.r160_in1k"
    commit = "0123456789abcdef0123456789abcdef01234567"
    (folder / "snapshots" / commit).mkdir(parents=True)
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text(commit)
    save_file(weights, folder / "snapshots" / commit / "model.safetensors")
    source = find("--backbone", "timm:test_resnet")
    assert_all_but_the_head(source, weights, "fc")
    assert source.image_size == 160


def test_weights_put_by_hand_where_the_message_says_are_used(hub_cache: Path, tmp_path: Path) -> None:
    weights = made(timm.create_model("test_resnet"))
    place = tmp_path / "atelier" / "timm" / "test_resnet.r160_in1k" / "model.safetensors"
    place.parent.mkdir(parents=True)
    save_file(weights, place)
    assert_all_but_the_head(find("--backbone", "timm:test_resnet"), weights, "fc")


@pytest.fixture
def serve() -> Iterator[Serve]:
    """A server on this machine that gives files by path, as the Hugging Face hub does; returns its address."""
    servers = []

    def start(files: dict[str, bytes]) -> str:
        class Handler(http.server.BaseHTTPRequestHandler):
            def do_HEAD(self) -> None:
                content = files.get(self.path)
                self.send_response(404 if content is None else 200)
                self.send_header("Content-Length", str(len(content or b"")))
                self.send_header("ETag", f'"{hashlib.sha256(content or b"").hexdigest()}"')
                self.send_header("X-Repo-Commit", "0123456789abcdef0123456789abcdef01234567")
                self.end_headers()

            def do_GET(self) -> None:
                self.do_HEAD()
                self.wfile.write(files.get(self.path, b""))

            def log_message(self, *_: object) -> None:
                pass

        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_address[1]}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def test_weights_of_timm_are_downloaded_once(hub_cache: Path, serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants, file_download

    weights = made(timm.create_model("test_resnet"))
    path = hub_cache.parent / "made.safetensors"
    save_file(weights, path)
    files = {"/timm/test_resnet.r160_in1k/resolve/main/model.safetensors": path.read_bytes()}
    address = serve(files)
    monkeypatch.setattr(constants, "ENDPOINT", address)
    template = address + "/{repo_id}/resolve/{revision}/{filename}"
    for module in (constants, file_download):  # older releases have a copy of their own
        monkeypatch.setattr(module, "HUGGINGFACE_CO_URL_TEMPLATE", template, raising=False)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    assert_all_but_the_head(find("--backbone", "timm:test_resnet"), weights, "fc")
    files.clear()
    assert_all_but_the_head(find("--backbone", "timm:test_resnet"), weights, "fc")


def unused_address() -> str:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{free.getsockname()[1]}"


def test_without_a_network_one_line_names_timms_file_its_repository_and_where_to_put_it(
    hub_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    template = unused_address() + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with pytest.raises(UserError) as caught:
        find("--backbone", "timm:resnet18")
    message = str(caught.value)
    place = tmp_path / "atelier" / "timm" / "resnet18.a1_in1k" / "model.safetensors"
    for part in ("model.safetensors of timm/resnet18.a1_in1k", f"put it at {place}", "--weights FILE"):
        assert part in message
    assert "\n" not in message
    for name in ("train/a", "train/b"):
        (tmp_path / "data" / name).mkdir(parents=True)
    argv = ["--data", tmp_path / "data", "--backbone", "timm:test_resnet", "--run-dir", tmp_path / "run"]
    assert forked.run(main, argv) == 2
    assert [path.name for path in tmp_path.iterdir()] == ["data"], "nothing was created"


@pytest.fixture
def preset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], Path]:
    """Moves torchvision's ResNet-18 weights to another address and name; returns where the cache would have them."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")

    def move(address: str, name: str) -> Path:
        weights = torchvision.models.ResNet18_Weights.DEFAULT.value
        monkeypatch.setattr(weights, "url", f"{address}/models/{name}")
        return tmp_path / "torch" / "hub" / "checkpoints" / name

    return move


def test_weights_of_torchvision_are_downloaded_once(serve: Serve, preset: Callable[[str, str], Path]) -> None:
    weights = made(torchvision.models.resnet18())
    stream = io.BytesIO()
    torch.save(weights, stream)
    name = f"resnet18-{hashlib.sha256(stream.getvalue()).hexdigest()[:8]}.pth"
    files = {f"/models/{name}": stream.getvalue()}
    place = preset(serve(files), name)
    source = find("--backbone", "torchvision:resnet18")
    assert_all_but_the_head(source, weights, "fc")
    assert (source.image_size, source.mean) == (224, (0.485, 0.456, 0.406))
    files.clear()
    assert place.exists()
    assert_all_but_the_head(find("--backbone", "torchvision:resnet18"), weights, "fc")


def test_without_a_network_one_line_names_torchvisions_file_and_its_place(preset: Callable[[str, str], Path]) -> None:
    place = preset(unused_address(), "resnet18-f37072fd.pth")
    with pytest.raises(UserError, match=r"resnet18-f37072fd\.pth") as caught:
        find("--backbone", "torchvision:resnet18")
    assert f"put it at {place}" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("backbone", "named"),
    [
        ("timm:no_such_model", "timm has no such model"),
        ("timm:resnet18.no_such_tag", "timm has no such model"),
        ("torchvision:no_such_model", "torchvision has no such classifier"),
        ("torchvision:resnet18.V9", "IMAGENET1K_V1"),
        ("torchvision:googlenet", "head is not plain"),
        ("torchvision:squeezenet1_1", "head is not plain"),
    ],
)
@pytest.mark.filterwarnings("ignore:The default weight initialization")
def test_a_backbone_that_cannot_be_is_named(backbone: str, named: str) -> None:
    with pytest.raises(UserError, match=named) as caught:
        find("--backbone", backbone, "--from-scratch")
    assert backbone.partition(".")[0] in str(caught.value)


@pytest.mark.parametrize("architecture", ["timm:test_vit", "timm:test_convnext", "torchvision:mobilenet_v3_small"])
def test_features_of_other_kinds_of_networks_are_found(architecture: str) -> None:
    network, head = build_network(architecture, 1000)
    wanted = network.get_submodule(head).in_features
    assert feature_size(without_head(network, head), 160 if "timm" in architecture else 64) == wanted


def test_a_size_that_the_backbone_does_not_take_is_named() -> None:
    network, head = build_network("timm:vit_tiny_patch16_224", 1000)
    with pytest.raises(UserError, match="--image-size 96"):
        feature_size(without_head(network, head), 96)


def test_a_run_gives_its_best_weights_and_its_own_constants(source_run: Path) -> None:
    source = find("--backbone", f"run:{source_run}")
    facts = json.loads((source_run / "run.json").read_text())["facts"]
    assert (source.architecture, source.image_size, source.num_classes) == ("run:fast", 16, 10)
    assert (list(source.mean or ()), list(source.std or ())) == (facts["mean"], facts["std"])
    saved = checkpoint.load(checkpoint.folder_of(source_run, checkpoint.best_step(source_run) or 0))["ema"]["module"]
    assert_all_but_the_head(source, saved, "head")
    frozen = [name for name, parameter in source.build().named_parameters() if not parameter.requires_grad]
    assert frozen == ["whitening.weight"], "what was not learned stays fixed, and nothing else"


def test_from_scratch_nothing_of_the_run_but_its_network_is_taken(source_run: Path) -> None:
    taken, source = find("--backbone", f"run:{source_run}"), find("--backbone", f"run:{source_run}", "--from-scratch")
    assert (source.architecture, source.mean, source.origin) == ("run:fast", None, "random")
    torch.manual_seed(0)
    backbone = source.build()
    assert all(parameter.requires_grad for parameter in backbone.parameters())
    convolutions = [name for name, p in backbone.named_parameters() if p.ndim == 4]
    weights, taken_weights = backbone.state_dict(), taken.build().state_dict()
    assert not any(torch.equal(weights[name], taken_weights[name]) for name in convolutions)


@pytest.mark.parametrize(
    "content", [None, "no json", '{"format": 2, "project": "sentiment", "config": {}, "facts": {}}']
)
def test_a_folder_without_a_network_is_named(content: str | None, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / "run.json").write_text(content)
    with pytest.raises(UserError, match=r"not a run folder|no network") as caught:
        find("--backbone", f"run:{tmp_path}")
    assert str(tmp_path) in str(caught.value)


@pytest.mark.parametrize("from_scratch", [False, True])
def test_the_run_folder_keeps_the_backbone_and_gives_it_back(
    from_scratch: bool, source_run: Path, tmp_path: Path
) -> None:
    words = ["--backbone", f"run:{source_run}", *(["--from-scratch"] if from_scratch else [])]
    source = find(*words)
    keep(source, tmp_path)
    kept = kept_source(tmp_path, facts_of(source), settings(*words))
    assert kept == source
    (tmp_path / "backbone.safetensors").unlink()
    with pytest.raises(UserError, match=r"missing: .*backbone\.safetensors"):
        kept_source(tmp_path, facts_of(source), settings(*words))


def facts_of(source: Source) -> Facts:
    """The facts of a run on a backbone."""
    mean, std = (list(values or (0.5,) * 3) for values in (source.mean, source.std))
    body = {
        "model": source.architecture,
        "num_source_classes": source.num_classes,
        "source_image_size": source.image_size,
        "weights": source.origin,
        "weights_sha256": source.sha256,
        "classes": ["a", "b"],
        "image_size": 16,
        "side": 16,
        "mean": mean,
        "std": std,
        "num_train": 1,
        "num_val": 1,
        "num_skipped": 0,
        "data_sha256": "",
    }
    return from_plain(Facts, body, "facts")


def test_a_package_gives_its_weights_with_the_constants_of_its_network() -> None:
    packaged = PACKAGED["efficientnet_lite0"]
    if not packaged.is_installed:
        pytest.skip(f"{packaged.distribution} is not installed")
    source = find("--backbone", "package:efficientnet_lite0")
    weights = packaged.weights()
    assert_all_but_the_head(source, weights, "classifier")
    assert (source.architecture, source.image_size) == ("timm:tf_efficientnet_lite0", 224)
    assert (source.mean, source.std) == ((0.5,) * 3, (0.5,) * 3)


def test_auto_takes_weights_in_the_cache_for_a_folder_and_else_the_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ATELIER_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    given = ["--data", tmp_path, "--from-scratch"]  # the network alone is looked at
    assert find(*given).architecture == "timm:tf_efficientnet_lite0"
    by_hand = tmp_path / "cache" / "timm" / "resnet18.a1_in1k" / "model.safetensors"
    by_hand.parent.mkdir(parents=True)
    by_hand.touch()
    assert find(*given).architecture == "timm:resnet18"
    assert find("--from-scratch").architecture == "small"
