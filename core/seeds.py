"""Random numbers named by (seed, epoch, purpose), without torch: what generates and splits data."""

import hashlib

import numpy as np
from numpy.typing import NDArray


def key(seed: int, epoch: int, purpose: str) -> int:
    """64 bits that name a use of randomness."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{epoch}/{purpose}".encode()).digest()[:8], "little")


def sample_generator(seed: int, epoch: int, index: int, purpose: str) -> np.random.Generator:
    """A generator of one sample's own, for transforms that draw as they go."""
    return np.random.Generator(np.random.Philox(key=key(seed, epoch, f"{purpose}/{index}")))


def permutation(seed: int, epoch: int, num: int) -> NDArray[np.int64]:
    """The very order that core.randomness.permutation draws with torch: int64 [num].

    torch.randperm takes a 32-bit number of the Mersenne Twister for each place and swaps (Fisher and Yates); numpy's
    RandomState is the same twister.
    """
    twister = np.random.RandomState(key(seed, epoch, "order") >> 1 & 0xFFFFFFFF)
    draws = np.frombuffer(twister.bytes(4 * max(0, num - 1)), dtype="<u4").astype(np.int64)
    order = list(range(num))
    for place, ahead in enumerate((draws % np.arange(num, 1, -1)).tolist()):
        order[place], order[place + ahead] = order[place + ahead], order[place]
    return np.array(order, dtype=np.int64)
