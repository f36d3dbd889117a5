"""What a project says of itself to be served: how a file is opened, which inputs share a batch, and what is answered.

This module loads no torch.
"""

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Literal, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from core.inference import OnnxModel

M = TypeVar("M", bound=OnnxModel[Any])
I = TypeVar("I")  # noqa: E741
O = TypeVar("O")  # noqa: E741
Kind = Literal["image", "text", "table", "seeds"]
Record = Mapping[str, Any]  # plain data for JSON
_MAX_BATCHED_VALUES = 3 << 20  # of an image: a megapixel


class Asked(NamedTuple, Generic[I, O]):
    """An input with the options of its request."""

    input: I
    options: O


@dataclass(frozen=True)
class Service(Generic[M, I, O]):
    """A project's side of a server.

    kind: what an input is: uint8 [H, W, 3] (image), a str (text), the path of a .csv (table), an int or the
    numbers that it would stand for (seeds). options:
    dataclass of what a request may set, made with core.config.option. load: opens a file, given the number of threads
    for a batch; raises UserError. predict: one JSON object an input, in their order; called by several threads at once
    with inputs of one batch_key. read: what predict and batch_key get as input in place of the above; raises UserError.
    """

    kind: Kind
    options: type[O]
    load: Callable[[Path, int], M]
    predict: Callable[[M, Sequence[Asked[I, O]]], Sequence[Record]]
    batch_key: Callable[[Asked[I, O]], Hashable]
    read: Callable[[M, Any], I] = lambda _, given: given


def key_of_image(image: NDArray[np.uint8]) -> Hashable:
    """The batch_key of images [H, W, 3]: their size; a large one is computed alone, which bounds a batch's memory."""
    return image.shape if image.size <= _MAX_BATCHED_VALUES else object()
