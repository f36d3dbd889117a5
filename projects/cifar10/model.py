"""The classifier's networks by name; here the fast one for CPUs and the ResNets, in networks/ the other classic ones.

Images [N, 3, S, S] in, logits [N, num_classes] out. ResNets: He et al. 2016 (arXiv 1512.03385), section 4.2 for
ResNet-20, with a CIFAR stem in ResNet-18 and 50; initialized after He et al. 2015 (arXiv 1502.01852) with the last norm
of each block at zero (Goyal et al. 2017, arXiv 1706.02677), so that a block begins as the identity. The fast network
follows the ideas of Jordan 2024, "94% on CIFAR-10 in 3.29 Seconds" (arXiv 2404.00498): a fixed whitening layer, then
few wide convolutions.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from core.errors import UserError
from core.evaluation import evaluating
from cuda_ext import pool_norm_act
from projects.cifar10.networks.alexnet import AlexNet
from projects.cifar10.networks.densenet import DenseNet
from projects.cifar10.networks.lenet import LeNet
from projects.cifar10.networks.mlp import Mlp
from projects.cifar10.networks.vgg import Vgg11
from projects.cifar10.networks.vit import VisionTransformer


def build_model(name: str, num_classes: int) -> nn.Module:
    """An untrained network by name: one of NETWORKS, or timm:NAME for any of timm's classifiers."""
    if name in NETWORKS:
        return NETWORKS[name](num_classes)
    import timm

    try:
        model: nn.Module = timm.create_model(name.removeprefix("timm:"), pretrained=False, num_classes=num_classes)
        return model
    except RuntimeError as error:
        raise UserError("timm has no such model", f"--model {name}", "see timm.list_models()") from error


def check_image_size(network: nn.Module, name: str, size: int) -> None:
    """Tries a forward pass before a run folder is made. Raises UserError for an image size that the network refuses."""
    try:
        with evaluating(network):
            network(torch.zeros(2, 3, size, size))
    except (AssertionError, RuntimeError, ValueError) as error:
        own = getattr(network, "default_cfg", {}).get("input_size")
        todo = f"give --image-size {own[-1]}" if own else "give a larger --image-size"
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        what = f"--image-size {size} for --model {name} ({reason})"
        raise UserError("the network does not take this size", what, todo) from error


class FastNet(nn.Module):
    """A whitening layer and three stages of two convolutions, with max pooling inside a stage's first one.

    The whitening filters are computed from training pictures by `whiten` and then stay as they are, so that no
    gradient has to go back through the largest activations. The other filters begin as the identity on their first
    channels (Dirac), the rest of them as PyTorch's default.
    """

    def __init__(self, num_classes: int, widths: Sequence[int] = (32, 96, 192)) -> None:
        super().__init__()
        self.whitening = nn.Conv2d(3, 24, kernel_size=2, bias=False)
        self.whitening.weight.requires_grad_(False)
        self.stages = nn.Sequential()
        channels = 24
        for width in widths:
            self.stages.append(FastStage(channels, width))
            channels = width
        self.head = nn.Linear(channels, num_classes, bias=False)

    @torch.no_grad()
    def whiten(self, images: Tensor, epsilon: float = 5e-4) -> None:
        """Sets the filters to the whitened principal components of 2×2 patches, and their negatives.

        images: normalized, [N, 3, S, S]; a few thousand are enough.
        """
        patches = F.unfold(images.float(), kernel_size=2).transpose(1, 2).reshape(-1, 12)
        values, vectors = torch.linalg.eigh(patches.T @ patches / len(patches))
        filters = (vectors / torch.sqrt(values + epsilon)).T.flip(0).reshape(12, 3, 2, 2)
        self.whitening.weight.copy_(torch.cat([filters, -filters]))

    def forward(self, images: Tensor) -> Tensor:
        """Logits."""
        features = self.stages(F.relu(self.whitening(images)))
        logits: Tensor = self.head(F.max_pool2d(features, features.shape[2:]).flatten(1))
        return logits / 9  # maxima are large; so the softmax starts soft


class FastStage(nn.Module):
    """Convolution, pooling to half the size, norm, ReLU; convolution, norm, ReLU."""

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels_out, 3, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(channels_out, momentum=0.4)
        self.conv2 = nn.Conv2d(channels_out, channels_out, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(channels_out, momentum=0.4)
        for conv in (self.conv1, self.conv2):
            nn.init.dirac_(conv.weight[: conv.in_channels])

    def forward(self, x: Tensor) -> Tensor:
        """[N, channels_in, S, S] → [N, channels_out, S/2, S/2]."""
        if self.training:
            return norm_relu(self.conv2(norm_relu(self.conv1(x), self.norm1, pool=True)), self.norm2, pool=False)
        x = F.relu(self.norm1(F.max_pool2d(self.conv1(x), 2)))
        return F.relu(self.norm2(self.conv2(x)))


def norm_relu(x: Tensor, norm: nn.BatchNorm2d, *, pool: bool) -> Tensor:
    """Pooling to half the size if asked for, norm with the statistics of the batch, ReLU, as one operation."""
    assert norm.momentum is not None
    if norm.training and norm.num_batches_tracked is not None:
        norm.num_batches_tracked.add_(1)
    return pool_norm_act(
        x,
        norm.weight,
        norm.bias,
        norm.running_mean,
        norm.running_var,
        training=norm.training,
        momentum=norm.momentum,
        eps=norm.eps,
        activation="relu",
        pool=pool,
    )


class ResNet(nn.Module):
    """Residual stages behind one 3×3 convolution; each stage after the first halves the size.

    widths, blocks: of each stage. projection: shortcut B of the paper where the shape changes, A otherwise.
    bottleneck: blocks of three convolutions that end with four times their width, as in ResNet-50.
    """

    def __init__(
        self,
        num_classes: int,
        widths: Sequence[int],
        blocks: Sequence[int],
        *,
        projection: bool = True,
        bottleneck: bool = False,
    ) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, widths[0], 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(widths[0])
        self.stages = nn.Sequential()
        channels = widths[0]
        for number, width in enumerate(widths):
            for block in range(blocks[number]):
                stride = 2 if number > 0 and block == 0 else 1
                if bottleneck:
                    self.stages.append(BottleneckBlock(channels, width, stride))
                else:
                    self.stages.append(ResidualBlock(channels, width, stride, projection))
                channels = 4 * width if bottleneck else width
        self.head = nn.Linear(channels, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            elif isinstance(module, ResidualBlock) and not isinstance(module.shortcut, Padding):
                # Where shortcut and norm both gave 0, ReLU would pass no gradient on, and the channel stay 0 for ever.
                nn.init.zeros_(module.norm2.weight)
            elif isinstance(module, BottleneckBlock):
                nn.init.zeros_(module.norm3.weight)

    def forward(self, images: Tensor) -> Tensor:
        """Logits."""
        features = self.stages(F.relu(self.norm(self.stem(images))))
        logits: Tensor = self.head(F.adaptive_avg_pool2d(features, 1).flatten(1))
        return logits


class ResidualBlock(nn.Module):
    """Two 3×3 convolutions round a shortcut: a 1×1 convolution where the shape changes (option B of the paper),
    or subsampling and zero channels (option A)."""

    def __init__(self, channels_in: int, channels_out: int, stride: int, projection: bool) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels_out, 3, stride=stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(channels_out)
        self.conv2 = nn.Conv2d(channels_out, channels_out, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(channels_out)
        self.shortcut: nn.Module = nn.Identity()
        if channels_in != channels_out or stride != 1:
            option_b = Projection(channels_in, channels_out, stride)
            self.shortcut = option_b if projection else Padding(channels_out, stride)

    def forward(self, x: Tensor) -> Tensor:
        """[N, channels_in, S, S] → [N, channels_out, S/stride, S/stride]."""
        y = self.norm2(self.conv2(F.relu(self.norm1(self.conv1(x)))))
        return F.relu(y + self.shortcut(x))


class BottleneckBlock(nn.Module):
    """A 1×1 convolution to `width` channels, a 3×3 one, and a 1×1 one to 4 × width, round a shortcut (option B)."""

    def __init__(self, channels_in: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.norm1 = nn.Conv2d(channels_in, width, 1, bias=False), nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride=stride, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(width)
        self.conv3, self.norm3 = nn.Conv2d(width, 4 * width, 1, bias=False), nn.BatchNorm2d(4 * width)
        changes = channels_in != 4 * width or stride != 1
        self.shortcut: nn.Module = Projection(channels_in, 4 * width, stride) if changes else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """[N, channels_in, S, S] → [N, 4 × width, S/stride, S/stride]."""
        y = F.relu(self.norm2(self.conv2(F.relu(self.norm1(self.conv1(x))))))
        return F.relu(self.norm3(self.conv3(y)) + self.shortcut(x))


class Projection(nn.Sequential):
    """Shortcut B: a strided 1×1 convolution and a norm."""

    def __init__(self, channels_in: int, channels_out: int, stride: int) -> None:
        conv = nn.Conv2d(channels_in, channels_out, 1, stride=stride, bias=False)
        super().__init__(conv, nn.BatchNorm2d(channels_out))


class Padding(nn.Module):
    """Shortcut A: every stride-th pixel, and zeros for the new channels; it has no weights."""

    def __init__(self, channels_out: int, stride: int) -> None:
        super().__init__()
        self.channels_out, self.stride = channels_out, stride

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, S, S] → [N, channels_out, S/stride, S/stride]."""
        x = x[:, :, :: self.stride, :: self.stride]
        return F.pad(x, (0, 0, 0, 0, 0, self.channels_out - x.shape[1]))


NETWORKS: Mapping[str, Callable[[int], nn.Module]] = {
    "fast": FastNet,
    "resnet18": partial(ResNet, widths=(64, 128, 256, 512), blocks=(2, 2, 2, 2)),
    "resnet20": partial(ResNet, widths=(16, 32, 64), blocks=(3, 3, 3), projection=False),
    "resnet50": partial(ResNet, widths=(64, 128, 256, 512), blocks=(3, 4, 6, 3), bottleneck=True),
    "lenet": LeNet,
    "alexnet": AlexNet,
    "vgg11": Vgg11,
    "densenet": DenseNet,
    "mlp": Mlp,
    "vit-tiny": VisionTransformer,
}
