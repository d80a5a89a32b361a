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


@dataclass
class Call:
    """A node that calls an activation, and a PyTorch module that computes the same."""

    name: str
    """The name of the module in the whole model after `insert`."""
    target: str
    """The name of the module in `owner`."""
    module: nn.PReLU | nn.LeakyReLU | nn.ReLU
    node: Node
    owner: GraphModule

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
        for node in owner.graph.nodes:
            module = _module(node, owner)
            if module is None:
                continue
            module.train(owner.training)
            stack = list(node.meta.get("nn_module_stack") or ())
            stem = ".".join(filter(None, [stack[-1] if stack else "", type(module).__name__.lower()]))
            target = next(name for name in _numbered(stem) if name not in taken and not _has(owner, name))
            taken.add(target)
            name = f"{prefix}.{target}" if prefix else target
            calls.append(Call(name, target, module, node, owner))
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


def _module(node: Node, owner: GraphModule) -> nn.PReLU | nn.LeakyReLU | nn.ReLU | None:
    """Return a module that computes the same as the node, or None."""
    if node.op not in ("call_function", "call_method"):
        return None
    if node.target not in (*_RELU, *_LEAKY, *_PRELU):
        return None
    arguments = _arguments(node)
    if any(isinstance(arguments.get(name), Node) for name in ("negative_slope", "inplace")):  # computed
        return None
    if node.target in _RELU:
        return nn.ReLU(arguments.get("inplace", _RELU[node.target]))
    if node.target in _LEAKY:
        return nn.LeakyReLU(arguments.get("negative_slope", 0.01), arguments.get("inplace", _LEAKY[node.target]))
    weight = arguments["weight"]
    parameter = _attribute(owner, str(weight.target)) if weight.op == "get_attr" else None
    if not isinstance(parameter, nn.Parameter) or parameter.ndim != 1:
        return None
    module = nn.PReLU(parameter.numel(), device="meta")
    module.weight = parameter
    return module


def _attribute(owner: Any, path: str) -> Any:
    for part in path.split("."):
        owner = getattr(owner, part)
    return owner
