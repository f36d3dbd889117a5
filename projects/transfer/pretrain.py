"""Teaches the small network the drawn source domain, on the spot: what a run without a network has to transfer from."""

import torch
import torch.nn.functional as F
from torch.optim import SGD
from torch.optim.lr_scheduler import LambdaLR

from core import randomness
from core.accelerator import Accelerator
from core.optim import decay_groups, one_cycle
from cuda_ext import augment, lookup_table
from projects.transfer.model import SmallNet
from projects.transfer.synthetic import SOURCE_CLASSES, draw_pictures

SIZE, NUM_PICTURES, EPOCHS, BATCH = 32, 3_000, 6, 50
PEAK_RATE, WEIGHT_DECAY, PADDING = 0.1, 5e-4, 2


def learn_source_domain(seed: int, accelerator: Accelerator) -> tuple[SmallNet, tuple[float, ...], tuple[float, ...]]:
    """The network with its head, and mean and standard deviation of its pictures; the same on every rank."""
    drawn, drawn_labels = draw_pictures(NUM_PICTURES, seed, SIZE, SOURCE_CLASSES, "day")
    mean = tuple(round(float(value) / 255, 4) for value in drawn.mean(axis=(0, 1, 2)))
    std = tuple(round(float(value) / 255, 4) for value in drawn.std(axis=(0, 1, 2)))
    device = accelerator.device
    pixels, labels = torch.from_numpy(drawn).to(device), torch.from_numpy(drawn_labels).to(device)
    table = lookup_table(mean, std).to(accelerator.device, accelerator.dtype)
    randomness.seed_all(seed, rank=0)
    network = SmallNet(len(SOURCE_CLASSES)).to(device).to(memory_format=torch.channels_last)
    optimizer = SGD(decay_groups(network, WEIGHT_DECAY), lr=PEAK_RATE, momentum=0.9, nesterov=True, fused=True)
    scheduler = LambdaLR(optimizer, one_cycle(EPOCHS * (NUM_PICTURES // BATCH)))
    accelerator.micro_batch(0, 1)
    for epoch in range(EPOCHS):
        for rows in torch.split(randomness.permutation(seed, epoch, NUM_PICTURES).to(device), BATCH):
            highs = (2 * PADDING + 1, 2 * PADDING + 1, 2, SIZE, SIZE)
            params = randomness.uniform_integers(seed, epoch, rows, "source", highs)
            with accelerator.autocast():
                logits = network(augment(pixels, rows, params, table, PADDING, 0))
            accelerator.step(F.cross_entropy(logits.float(), labels[rows]), optimizer, scheduler=scheduler)
    accelerator.check()
    randomness.seed_all(seed, rank=0)  # what follows does not depend on whether this was done
    return network.cpu().eval(), mean, std
