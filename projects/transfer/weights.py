"""Pretrained weights: matched to a network by name; those of timm found in their usual cache or downloaded.

timm's weights lie in Hugging Face's cache (https://huggingface.co/docs/huggingface_hub/guides/manage-cache).
"""

import http.client
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from core.download import cache_dir
from core.errors import UserError
from core.weights import content_length, unobtainable

Weights = Mapping[str, Tensor]
_NUM_NAMED = 4  # of the weights that do not fit, in a message of one line


def hub_file(repository: str, name: str = "model.safetensors") -> Path:
    """A file of a Hugging Face repository: put there by hand, from the cache, or downloaded.

    Raises UserError, naming file, repository and where to put it, where there is no way to it.
    """
    if (cached := cached_hub_file(repository, name)) is not None:
        return cached
    from huggingface_hub import hf_hub_download, hf_hub_url

    by_hand = cache_dir() / repository / name
    try:
        # One look first: the library would try a network that is not there for half a minute.
        if not os.environ.get("HF_HUB_OFFLINE"):
            content_length(hf_hub_url(repository, name))
        return Path(hf_hub_download(repository, name))
    except (OSError, ValueError, http.client.HTTPException) as error:
        raise unobtainable(f"{name} of {repository}", error, by_hand) from error


def cached_hub_file(repository: str, name: str = "model.safetensors") -> Path | None:
    """A file of a Hugging Face repository that is on this machine: put there by hand, or in the cache."""
    by_hand = cache_dir() / repository / name
    if by_hand.is_file():
        return by_hand
    from huggingface_hub import try_to_load_from_cache

    cached = try_to_load_from_cache(repository, name)
    return Path(cached) if isinstance(cached, str) else None


def load_weights(network: nn.Module, weights: Weights, *, head: str, where: object, partial: bool) -> Sequence[str]:
    """Puts weights into a network; its head, which is replaced anyway, may be missing or of another size.

    Returns what did not fit, which is none unless `partial`. Raises UserError, with the network unchanged, for a
    name or shape that differs, and for values that are not finite.
    """
    own = network.state_dict()
    wanted = {name: tensor for name, tensor in own.items() if not name.startswith(f"{head}.")}
    given = {name: tensor for name, tensor in weights.items() if not name.startswith(f"{head}.")}
    faults = [f"{name} is missing" for name in wanted if name not in given and not _is_counter(name)]
    faults += [f"{name} is not in the network" for name in given if name not in wanted]
    both = [name for name in wanted if name in given]
    for name in both:
        if (
            given[name].shape != wanted[name].shape
            or given[name].is_floating_point() != wanted[name].is_floating_point()
        ):
            faults.append(f"{name} is {_described(given[name])}, the network has {_described(wanted[name])}")
    unfit = {fault.partition(" ")[0] for fault in faults}
    fitting = {name: given[name] for name in both if name not in unfit}
    if faults and not (partial and any(tensor.ndim > 1 for tensor in fitting.values())):
        named = "; ".join(faults[:_NUM_NAMED]) + (
            f"; and {len(faults) - _NUM_NAMED} more" if len(faults) > _NUM_NAMED else ""
        )
        todo = "give a file of this backbone" + ("" if partial else ", or --partial-weights to take what fits")
        raise UserError("the weights do not fit the backbone", f"{where}: {named}", todo)
    for name, tensor in fitting.items():
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            raise UserError("a weight is not finite", f"{name} in {where}", "give another file")
    network.load_state_dict({**own, **fitting})
    return faults


def _is_counter(name: str) -> bool:
    """Whether a buffer counts a norm's batches, which older files lack and nothing depends on."""
    return name.endswith(".num_batches_tracked")


def _described(tensor: Tensor) -> str:
    """A tensor's dtype and shape."""
    return f"{str(tensor.dtype).removeprefix('torch.')} {list(tensor.shape)}"


def report_unfit(faults: Sequence[str]) -> None:
    """Lists what of a weights file was left out."""
    if faults:
        print(f"note: {len(faults)} weights do not fit and were left out:", file=sys.stderr)
        for fault in faults:
            print(f"  {fault}", file=sys.stderr)
