"""Finds activations that are called as functions in models traced by torch.fx."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.fx import GraphModule, Node
from torch.nn import functional as F

_ATEN = torch.ops.aten  # torch.export records these
_RELU = {F.relu: False, torch.relu: False, F.relu_: True, "relu": False, "relu_": True}  # value: whether in place
_RELU |= {_ATEN.relu.default: False, _ATEN.relu_.default: True}
_LEAKY = {F.leaky_relu: False, F.leaky_relu_: True, _ATEN.leaky_relu.default: False, _ATEN.leaky_relu_.default: True}
_PRELU = (F.prelu, torch.prelu, "prelu", _ATEN.prelu.default)
_INSTEAD = "call learnable_leaky_relu or straight_through_relu of leaky_ext instead, which support any slope"

Activation = nn.PReLU | nn.LeakyReLU | nn.ReLU


@dataclass
class Call:
    """A node that calls an activation, and a PyTorch module that computes the same."""

    name: str
    """The name of the module in the whole model after `insert`."""
    target: str
    """The name of the module in `owner`."""
    module: Activation
    node: Node
    owner: GraphModule
    skipped: str
    """The reason if no module computes the same: `module` then only shows the type. Otherwise empty."""

    def __str__(self) -> str:
        """Return the call as it is in the graph: ``leaky_relu(add, div)``."""
        options = [f"{name}={value}" for name, value in self.node.kwargs.items()]
        function = getattr(self.node.target, "__name__", self.node.target)
        return f"{function}({', '.join([*map(str, self.node.args), *options])})"

    def insert(self, module: nn.Module) -> None:
        """Replace the function call in the graph by a call of `module`."""
        graph = self.owner.graph
        self.owner.add_submodule(self.target, module)
        with graph.inserting_before(self.node):
            call = graph.call_module(self.target, (_arguments(self.node)["input"],))
        call.meta = self.node.meta
        self.node.replace_all_uses_with(call)
        graph.erase_node(self.node)
        graph.lint()
        self.owner.recompile()


def function_calls(model: nn.Module) -> list[Call]:
    """Return every activation that a graph in `model` calls as a function, with an unused module name.

    Raises:
        ValueError: there is no graph in `model`.
    """
    owners = [(name, module) for name, module in model.named_modules() if isinstance(module, GraphModule)]
    if not owners:
        raise ValueError(
            f"functions=True requires a graph, and no part of this {type(model).__name__} is a torch.fx.GraphModule: "
            "pass torch.fx.symbolic_trace(model), or trace the submodule that calls activations as functions"
        )
    calls = []
    for prefix, owner in owners:
        taken = {name for name, _ in owner.named_modules()}
        found = [(node, *_module(node, owner)) for node in owner.graph.nodes if _is_activation(node)]
        for node, module, skipped in sorted(found, key=lambda call: bool(call[2])):  # those that become modules first
            module.train(owner.training)
            stack = list(node.meta.get("nn_module_stack") or ())
            stem = ".".join(filter(None, [stack[-1] if stack else "", type(module).__name__.lower()]))
            target = next(name for name in _numbered(stem) if name not in taken and not _has(owner, name))
            taken.add(target)
            name = f"{prefix}.{target}" if prefix else target
            calls.append(Call(name, target, module, node, owner, skipped))
    return calls


def _numbered(stem: str) -> Any:
    yield stem
    number = 1
    while True:
        yield f"{stem}_{number}"
        number += 1


def _has(owner: nn.Module, name: str) -> bool:
    """Return whether `owner` has an attribute with this dotted name."""
    for part in name.split("."):
        if not hasattr(owner, part):
            return False
        owner = getattr(owner, part)
    return True


def _arguments(node: Node) -> dict[str, Any]:
    """Return all arguments of a call by name."""
    second = "weight" if node.target in _PRELU else "inplace" if node.target in _RELU else "negative_slope"
    given = dict(zip(("input", second, "inplace"), node.args, strict=False)) | dict(node.kwargs)
    return {"input": given.pop("self", None)} | given if "self" in given else given


def _is_activation(node: Node) -> bool:
    return node.op in ("call_function", "call_method") and node.target in (*_RELU, *_LEAKY, *_PRELU)


def _module(node: Node, owner: GraphModule) -> tuple[Activation, str]:
    """Return a module that computes the same as the node, and "". If there is none, return its type and the reason."""
    arguments = _arguments(node)
    if node.target in _PRELU:
        return _prelu(arguments["weight"], owner)
    inplace = arguments.get("inplace", (_RELU | _LEAKY)[node.target])
    slope = arguments.get("negative_slope", 0.01)
    module = nn.ReLU() if node.target in _RELU else nn.LeakyReLU()
    if isinstance(inplace, Node):
        return module, "whether it overwrites its input is computed when the graph runs: pass a constant"
    if isinstance(slope, Node):
        return module, f"its slope is {_origin(slope)}: {_INSTEAD}"
    return nn.ReLU(inplace) if node.target in _RELU else nn.LeakyReLU(slope, inplace), ""


def _prelu(weight: Node, owner: GraphModule) -> tuple[nn.PReLU, str]:
    stored = _attribute(owner, str(weight.target)) if weight.op == "get_attr" else None
    module = nn.PReLU(device="meta")
    if stored is None:
        return module, f"its slope is {_origin(weight)}: {_INSTEAD}"
    if not isinstance(stored, nn.Parameter):
        return module, f"its slope is a tensor, but not a parameter: {_INSTEAD}"
    if stored.ndim != 1:
        return module, f"its slope is a {stored.ndim}-D parameter, and a module has a 1-D parameter: {_INSTEAD}"
    module = nn.PReLU(stored.numel(), device="meta")
    module.weight = stored
    return module, ""


def _origin(slope: Node) -> str:
    return "an input of the graph" if slope.op == "placeholder" else "computed when the graph runs"


def _attribute(owner: Any, path: str) -> Any:
    for part in path.split("."):
        owner = getattr(owner, part)
    return owner
