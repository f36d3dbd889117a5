"""A network's forward pass as plain data, and a network that goes through it.

torch.fx traces the pass (https://docs.pytorch.org/docs/stable/fx.html). Modules, functions and methods are looked up in
fixed lists, so that data from elsewhere cannot name anything else.
"""

import inspect
import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from core.evaluation import evaluating

_MODULES: Mapping[str, type[nn.Module]] = {
    kind.__name__: kind
    for kind in (
        *(nn.Conv2d, nn.Linear, nn.BatchNorm2d, nn.GroupNorm, nn.LayerNorm, nn.Identity, nn.Flatten, nn.Dropout),
        *(nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.GELU, nn.SiLU, nn.Sigmoid, nn.Tanh, nn.Softmax, nn.Hardswish),
        *(nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d, nn.Upsample, nn.ZeroPad2d),
    )
}
_FUNCTIONS: Mapping[str, Callable[..., Any]] = {
    **{name: getattr(operator, name) for name in ("add", "sub", "mul", "truediv", "floordiv", "neg", "getitem")},
    **{name: getattr(torch, name) for name in ("cat", "flatten", "mean", "sigmoid", "tanh", "amax")},
    **{
        f"functional.{name}": getattr(F, name)
        for name in (
            *("relu", "leaky_relu", "gelu", "silu", "softmax", "pad", "interpolate", "normalize"),
            *("max_pool2d", "avg_pool2d", "adaptive_avg_pool2d", "adaptive_max_pool2d", "scaled_dot_product_attention"),
        )
    },
    "relu": torch.relu,
    "getattr": getattr,
}
_METHODS = frozenset(
    {"flatten", "mean", "amax", "relu", "reshape", "permute", "transpose", "contiguous", "float", "size"}
)
_ATTRIBUTES = frozenset({"shape", "ndim"})
_CONTAINER = ["Module", {}]  # a module that only holds others


class TracedNetwork(nn.Module):
    """A network that goes through stored steps. program: what program_of gives; tensors: its state_dict."""

    def __init__(self, program: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
        super().__init__()
        for name, (kind, arguments) in program["modules"].items():
            parent, own = _parent(self, name)
            parent.add_module(own, _module(kind, arguments))
        for name, is_parameter in program["tensors"].items():
            parent, own = _parent(self, name)
            if is_parameter:
                parent.register_parameter(own, nn.Parameter(torch.zeros_like(tensors[name])))
            else:
                parent.register_buffer(own, torch.zeros_like(tensors[name]))
        for name in program["frozen"]:
            self.get_parameter(name).requires_grad_(False)
        self.steps = _steps(program["steps"])
        for step in self.steps:
            if step.kind == "module":
                self.get_submodule(step.target)
            elif step.kind == "tensor" and step.target not in program["tensors"]:
                raise ValueError(f"{step.target} is not a tensor of the network")

    def forward(self, images: Tensor) -> Tensor:
        """Normalized images [N, 3, S, S] → logits."""
        values: dict[str, Any] = {}
        for step in self.steps:
            if step.kind == "placeholder":
                values[step.name] = images
                continue
            arguments = [_filled(each, values) for each in step.arguments]
            named = {key: _filled(each, values) for key, each in step.named.items()}
            if step.kind == "module":
                values[step.name] = self.get_submodule(step.target)(*arguments, **named)
            elif step.kind == "function":
                values[step.name] = _FUNCTIONS[step.target](*arguments, **named)
            elif step.kind == "method":
                values[step.name] = getattr(arguments[0], step.target)(*arguments[1:], **named)
            else:
                parent, own = _parent(self, step.target)
                values[step.name] = {**parent._parameters, **parent._buffers}[own]
            for name in step.last_used:
                del values[name]
        result: Tensor = values[self.steps[-1].name]
        return result


def program_of(network: nn.Module) -> dict[str, Any]:
    """A network's modules and forward pass in evaluation as plain data. Raises ValueError for what the format does not
    know."""
    try:
        with evaluating(network):
            graph = fx.symbolic_trace(network).graph
    except Exception as error:  # control flow that depends on values raises various types
        raise ValueError(f"the network cannot be traced: {error}") from error
    kinds = {"call_module": "module", "call_function": "function", "call_method": "method", "get_attr": "tensor"}
    function_names = {function: name for name, function in _FUNCTIONS.items()}
    steps: list[Any] = []
    for node in graph.nodes:
        if node.op == "output":
            break
        target = function_names.get(node.target, str(node.target)) if callable(node.target) else str(node.target)
        arguments = [_plain(each) for each in node.args]
        named = {key: _plain(each) for key, each in node.kwargs.items()}
        steps.append([node.name, kinds.get(node.op, node.op), target, arguments, named])
    _steps(steps)  # says what the format does not know
    modules: dict[str, Any] = {}
    tensors: dict[str, bool] = {}
    for name, module in network.named_modules():
        if name:
            modules[name] = _described(module)
        if modules.get(name, _CONTAINER) == _CONTAINER:
            own = {**dict(module.named_parameters(recurse=False)), **dict(module.named_buffers(recurse=False))}
            tensors |= {f"{name}.{key}".lstrip("."): isinstance(each, nn.Parameter) for key, each in own.items()}
    frozen = [name for name, parameter in network.named_parameters() if not parameter.requires_grad]
    return {"modules": modules, "tensors": tensors, "frozen": frozen, "steps": steps}


class _Step(NamedTuple):
    """A step of a forward pass; last_used: values that no later step needs."""

    name: str
    kind: str
    target: str
    arguments: Sequence[Any]
    named: Mapping[str, Any]
    last_used: Sequence[str]


def _steps(stored: Sequence[Sequence[Any]]) -> list[_Step]:
    """The stored steps, checked. Raises ValueError for a function, method or attribute that is not in the lists."""
    steps: list[_Step] = []
    done: set[str] = set()
    for name, _, _, arguments, named in stored:
        if not _values_in([arguments, named]) <= done:
            raise ValueError(f"step {name} uses a value of no earlier step")
        done.add(name)
    needed = {str(stored[-1][0])}
    for name, kind, target, arguments, named in reversed(stored):
        allowed = {"function": _FUNCTIONS, "method": _METHODS}.get(kind)
        if kind not in ("placeholder", "module", "function", "method", "tensor"):
            raise ValueError(f"step of the unknown kind {kind}")
        if allowed is not None and target not in allowed:
            raise ValueError(f"{kind} {target} is not among those that are known")
        if target == "getattr" and arguments[1] not in _ATTRIBUTES:
            raise ValueError(f"attribute {arguments[1]} is not among those that are known")
        used = _values_in([arguments, named])
        steps.append(_Step(name, kind, target, arguments, named, sorted(used - needed)))
        needed |= used
    return steps[::-1]


def _described(module: nn.Module) -> list[Any]:
    """A module's kind and the arguments that it was made with. Raises ValueError for a kind that is not known."""
    for kind in (nn.Sequential, nn.ModuleList):
        if isinstance(module, kind):
            return [kind.__name__, {}]
    if not type(module).__module__.startswith("torch.nn"):
        return _CONTAINER
    if _MODULES.get(type(module).__name__) is not type(module):
        raise ValueError(f"module {type(module).__name__} is not among those that are known")
    arguments = {}
    for name in inspect.signature(type(module).__init__).parameters:
        if name == "bias":
            arguments[name] = module.bias is not None
        elif hasattr(module, name) and name not in ("self", "device", "dtype"):
            arguments[name] = _plain(getattr(module, name))
    return [type(module).__name__, arguments]


def _module(kind: str, arguments: Mapping[str, Any]) -> nn.Module:
    """A module from its kind and arguments."""
    containers: Mapping[str, type[nn.Module]] = {
        "Sequential": nn.Sequential,
        "ModuleList": nn.ModuleList,
        "Module": nn.Module,
    }
    if kind in containers:
        return containers[kind]()
    return _MODULES[kind](**{name: _filled(value, {}) for name, value in arguments.items()})


def _parent(root: nn.Module, name: str) -> tuple[nn.Module, str]:
    """The module that holds what a dotted name names, and its name there."""
    path, _, own = name.rpartition(".")
    return root.get_submodule(path), own


def _plain(value: Any) -> Any:
    """An argument as JSON can hold it: a value of another step, a tuple and a slice become objects with one key."""
    if isinstance(value, fx.Node):
        return {"value": value.name}
    if isinstance(value, slice):
        return {"slice": [_plain(each) for each in (value.start, value.stop, value.step)]}
    if isinstance(value, tuple):
        return {"tuple": [_plain(each) for each in value]}
    if isinstance(value, list):
        return [_plain(each) for each in value]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise ValueError(f"argument {value!r} is of the kind {type(value).__name__}, which is not known")


def _filled(plain: Any, values: Mapping[str, Any]) -> Any:
    """The argument that _plain has described, with the values of steps that have run."""
    if isinstance(plain, list):
        return [_filled(each, values) for each in plain]
    if not isinstance(plain, dict):
        return plain
    ((kind, content),) = plain.items()
    if kind == "value":
        return values[content]
    return slice(*_filled(content, values)) if kind == "slice" else tuple(_filled(content, values))


def _values_in(plain: Any) -> set[str]:
    """The names of the steps whose values an argument uses."""
    if isinstance(plain, dict) and isinstance(plain.get("value"), str):
        return {plain["value"]}
    parts = plain.values() if isinstance(plain, dict) else plain if isinstance(plain, list) else ()
    return set().union(*(_values_in(each) for each in parts))
