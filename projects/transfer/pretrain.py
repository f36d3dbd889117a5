"""Teaches the small network the generated source domain: what `--backbone source` transfers from, in some seconds."""

import torch
import torch.nn.functional as F
from torch.optim import SGD

from core import randomness
from core.accelerator import Accelerator
from core.optim import decay_groups, one_cycle
from cuda_ext import augment, lookup_table
from projects.transfer.model import SmallNet
from projects.transfer.synthetic import SOURCE_CLASSES, draw_images

SIZE = 32
_NUM_IMAGES, _EPOCHS, _BATCH_SIZE = 3_000, 6, 50
_PEAK_RATE, _WEIGHT_DECAY, _PADDING = 0.1, 5e-4, 2


def learn_source_domain(seed: int, accelerator: Accelerator) -> tuple[SmallNet, tuple[float, ...], tuple[float, ...]]:
    """The network with its head, and mean and standard deviation of its images; the same on every rank."""
    drawn, drawn_labels = draw_images(_NUM_IMAGES, seed, SIZE, SOURCE_CLASSES, "day")
    mean = tuple(round(float(value) / 255, 4) for value in drawn.mean(axis=(0, 1, 2)))
    std = tuple(round(float(value) / 255, 4) for value in drawn.std(axis=(0, 1, 2)))
    device = accelerator.device
    pixels, labels = torch.from_numpy(drawn).to(device), torch.from_numpy(drawn_labels).to(device)
    table = lookup_table(mean, std).to(device, accelerator.dtype)
    randomness.seed_all(seed, rank=0)
    network = SmallNet(len(SOURCE_CLASSES)).to(device).to(memory_format=torch.channels_last)
    optimizer = SGD(decay_groups(network, _WEIGHT_DECAY), lr=_PEAK_RATE, momentum=0.9, nesterov=True, fused=True)
    schedule, step = one_cycle(_EPOCHS * (_NUM_IMAGES // _BATCH_SIZE)), 0
    for epoch in range(_EPOCHS):
        for rows in torch.split(randomness.permutation(seed, epoch, _NUM_IMAGES).to(device), _BATCH_SIZE):
            for group in optimizer.param_groups:
                group["lr"] = _PEAK_RATE * schedule(step)
            highs = (2 * _PADDING + 1, 2 * _PADDING + 1, 2, SIZE, SIZE)
            params = randomness.uniform_integers(seed, epoch, rows, "source", highs)
            with accelerator.autocast():
                logits = network(augment(pixels, rows, params, table, _PADDING, 0))
            accelerator.step(F.cross_entropy(logits.float(), labels[rows]), optimizer)
            step += 1
    accelerator.check()
    randomness.seed_all(seed, rank=0)  # what follows does not depend on whether this was done
    return network.cpu().eval(), mean, std
