"""The features of a frozen backbone, computed once: an epoch of head-only training is then a few small products.

The loaders here stand in for those of images: the same samples in the same order, so training ends with the same
head. Fixed augmented views are features too; each epoch takes the next one.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from core.accelerator import Accelerator
from core.data import BatchLoader, Order
from core.distributed import World
from core.evaluation import evaluating
from core.vision.image_set import ImageSet, batches
from cuda_ext import lookup_table
from projects.transfer.augment import Preprocessing, training_view
from projects.transfer.config import Config
from projects.transfer.data import Batch, Data, Views, evaluation_loader, training_order


def cached_training_loader(
    backbone: nn.Module, data: Data, preprocessing: Preprocessing, config: Config, accelerator: Accelerator
) -> BatchLoader[Batch]:
    """Batches of features of the training images, of each of their fixed views in turn."""
    table = lookup_table(preprocessing.mean, preprocessing.std).to(accelerator.device, accelerator.dtype)
    num = len(data.train)

    def make(pixels: Tensor, rows: Tensor, samples: Tensor, labels: Tensor, epoch: int) -> Tensor:
        return training_view(pixels, rows, samples, epoch, preprocessing, table, config)

    order = Order(num, config.batch_size, training=False)
    loader = batches(data.train, order, make, accelerator, config.workers)
    views = []
    for view in range(config.num_views):
        parts = [_features_of(backbone, images, accelerator) for images in loader.batches(epoch=view)]
        views.append(torch.cat(parts))
    labels = torch.from_numpy(data.train.labels).to(accelerator.device)

    def make_batch(samples: Tensor, epoch: int) -> Batch:
        rows = samples.to(accelerator.device, non_blocking=True) % num
        return views[epoch % len(views)][rows], F.one_hot(labels[rows], len(data.classes)).float()

    return BatchLoader(make_batch, training_order(data, config, accelerator.world))


def cached_evaluation_loader(
    backbone: nn.Module,
    images: ImageSet,
    preprocessing: Preprocessing,
    config: Config,
    accelerator: Accelerator,
    world: World,
) -> BatchLoader[Views]:
    """Batches of features of a set's images, plain and mirrored."""
    loader = evaluation_loader(images, preprocessing, config, accelerator, World())
    parts = [[_features_of(backbone, view, accelerator) for view in views] for views, _ in loader.batches(epoch=0)]
    features: Sequence[Tensor] = [torch.cat(part) for part in zip(*parts, strict=True)]
    labels = torch.from_numpy(images.labels).to(accelerator.device)

    def make_batch(samples: Tensor, epoch: int) -> Views:
        rows = samples.to(accelerator.device)
        return [view[rows] for view in features], labels[rows]

    return BatchLoader(make_batch, Order(len(images), config.batch_size, training=False, world=world))


def _features_of(backbone: nn.Module, images: Tensor, accelerator: Accelerator) -> Tensor:
    """[N, 3, S, S] → [N, num_features], in the precision that the head will be given them in."""
    with evaluating(backbone), accelerator.autocast():
        features: Tensor = backbone(images)
    return features.clone()  # an inference tensor cannot take part in training
