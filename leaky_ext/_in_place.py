"""Finds the activations that may overwrite their input, because no other module reads it."""

from torch import nn
from torch.fx import GraphModule, Node
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd

_FRESH = (_ConvNd, nn.Linear, nn.Bilinear, _NormBase, nn.GroupNorm, nn.LayerNorm)


def safe_in_place(model: nn.Module) -> set[nn.Module]:
    """Return the modules in `model` that are the only reader of their input in every call.

    Only an nn.Sequential or a torch.fx graph shows which modules read a tensor.
    """
    calls: dict[nn.Module, list[bool]] = {}
    for parent in model.modules():
        if isinstance(parent, GraphModule):
            for node in parent.graph.nodes:
                if node.op == "call_module":
                    calls.setdefault(parent.get_submodule(node.target), []).append(reads_alone(node, parent))
        elif type(parent).forward is nn.Sequential.forward:
            before = None
            for child in parent._modules.values():
                calls.setdefault(child, []).append(_is_fresh(before))  # type: ignore[arg-type]
                before = child
        elif type(parent) is not nn.Module:  # a plain nn.Module only groups a graph's submodules
            for child in parent.children():
                calls.setdefault(child, []).append(False)
    return {module for module, safe in calls.items() if all(safe)}


def reads_alone(node: Node, graph: GraphModule) -> bool:
    """Return whether a node is the only reader of its first argument."""
    source = node.args[0] if node.args else None
    if not isinstance(source, Node) or source.op != "call_module" or len(source.users) > 1:
        return False
    return _is_fresh(graph.get_submodule(str(source.target)))


def _is_fresh(module: nn.Module | None) -> bool:
    """Return whether `module` is a PyTorch layer whose output neither its own backward nor a hook reads."""
    known = isinstance(module, _FRESH) and type(module).__module__.startswith("torch.nn.")
    return known and not module._forward_hooks  # type: ignore[union-attr]
