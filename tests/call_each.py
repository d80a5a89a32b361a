"""Calls each public function once, as an application would, and prints where leaky_ext was found.

For uncommon installations: only bytecode, PyInstaller, several versions of torch.
"""

import torch
from torch import nn

import leaky_ext


def main() -> None:
    x = torch.tensor([[-2.0, 3.0]], requires_grad=True)
    alpha = torch.full((1,), 0.25, requires_grad=True)
    y = leaky_ext.learnable_leaky_relu(x, alpha)
    y.sum().backward()
    assert y.tolist() == [[-0.5, 3.0]]
    assert alpha.grad is not None
    assert alpha.grad.item() == -2
    leaky_ext.learnable_leaky_relu_(x * 1, 0.5).sum().backward()
    assert leaky_ext.straight_through_relu(x).tolist() == [[0, 3]]
    assert leaky_ext.straight_through_relu_(x * 1, 0.5).tolist() == [[0, 3]]
    assert leaky_ext.straight_through(x.detach(), 2 * x).tolist() == x.tolist()

    model = nn.Sequential(nn.Linear(2, 2), nn.PReLU(), nn.ReLU(), leaky_ext.StraightThroughReLU())
    leaky_ext.convert(model)
    assert isinstance(model[1], leaky_ext.PReLU)
    model.append(leaky_ext.LearnableLeakyReLU(2))
    torch.optim.SGD(leaky_ext.parameter_groups(model, weight_decay=0.1), lr=0.1).zero_grad()
    monitor = leaky_ext.AlphaMonitor(model)
    model(x).sum().backward()
    monitor.step()
    leaky_ext.revert(model)
    assert type(model[1]) is nn.PReLU
    print(leaky_ext.show_config())
    print(leaky_ext.__file__)


if __name__ == "__main__":
    main()
