"""Everything random: per-sample numbers as a function of (seed, epoch, index, purpose), and the generators' states.

A sample's random choices are not drawn from a stream, whose position would depend on the number of workers and on
where a run was stopped. They are hashed from their names with the finaliser of SplitMix64 (Steele, Lea, Flood 2014,
https://doi.org/10.1145/2660193.2660195), in integer arithmetic that is the same on every device.
"""

import random
from typing import Any

import numpy as np
import torch
from torch import Tensor

from core.seeds import key

_MASK = (1 << 64) - 1


def uniform_integers(seed: int, epoch: int, indices: Tensor, purpose: str, highs: tuple[int, ...]) -> Tensor:
    """Random whole numbers for samples, a column for each of `highs`.

    indices: int64 [N], on any device. Returns int64 [N, len(highs)], column k in [0, highs[k]), highs[k] ≤ 2³².
    """
    columns = torch.arange(len(highs), device=indices.device)
    counter = indices[:, None] * len(highs) + columns[None, :] + 1
    bits = _mix(counter * _signed(0x9E3779B97F4A7C15) + _signed(key(seed, epoch, purpose)))
    top = (bits >> 32) & 0xFFFFFFFF
    return ((top * torch.tensor(highs, dtype=torch.int64, device=indices.device)) >> 32) & 0xFFFFFFFF  # it may wrap


def permutation(seed: int, epoch: int, num: int) -> Tensor:
    """The order of samples in an epoch: int64 [num]."""
    return torch.randperm(num, generator=generator(seed, epoch, "order"))


def generator(seed: int, epoch: int, purpose: str) -> torch.Generator:
    """torch's generator on the CPU, seeded for one use of randomness."""
    return torch.Generator().manual_seed(key(seed, epoch, purpose) >> 1)


def _signed(value: int) -> int:
    """The int64 with the bits of a 64-bit unsigned number."""
    value &= _MASK
    return value - (1 << 64) if value >> 63 else value


def _mix(x: Tensor) -> Tensor:
    """The finaliser of SplitMix64; int64 arithmetic wraps, and the masks make shifts logical."""
    x = (x ^ ((x >> 30) & (_MASK >> 30))) * _signed(0xBF58476D1CE4E5B9)
    x = (x ^ ((x >> 27) & (_MASK >> 27))) * _signed(0x94D049BB133111EB)
    return x ^ ((x >> 31) & (_MASK >> 31))


def seed_all(seed: int, rank: int) -> None:
    """Seeds Python, numpy and torch, each rank with a number of its own."""
    value = key(seed, rank, "global") & 0xFFFFFFFF
    random.seed(value)
    np.random.seed(value)
    torch.manual_seed(value)


def get_states() -> dict[str, Any]:
    """The states of the global generators, which dropout and the like draw from."""
    numpy: Any = np.random.get_state()
    name, words, position, has_gauss, cached = numpy
    version, python_words, gauss = random.getstate()
    on_gpu = torch.cuda.is_initialized()
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state() if on_gpu else None,
        "numpy": [str(name), torch.from_numpy(words.astype(np.int64)), int(position), int(has_gauss), float(cached)],
        "python": [version, torch.tensor(python_words), gauss],
    }


def set_states(states: dict[str, Any]) -> None:
    """Takes up what get_states gave."""
    torch.set_rng_state(states["torch"])
    if states["cuda"] is not None and torch.cuda.is_available():
        torch.cuda.set_rng_state(states["cuda"])
    name, words, position, has_gauss, cached = states["numpy"]
    np.random.set_state((name, words.numpy().astype(np.uint32), position, has_gauss, cached))
    version, python_words, gauss = states["python"]
    random.setstate((version, tuple(python_words.tolist()), gauss))
