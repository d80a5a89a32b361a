"""parameter_groups."""

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.fsdp import FullyShardedDataParallel

from leaky_ext import LearnableLeakyReLU, StraightThroughReLU, parameter_groups


def model():
    shared = LearnableLeakyReLU()
    return nn.Sequential(
        nn.Linear(4, 8),
        shared,
        nn.BatchNorm1d(8),
        shared,
        nn.PReLU(8),
        StraightThroughReLU(learnable=True, num_parameters=8),
        nn.Linear(8, 2),
        StraightThroughReLU(),
        nn.ReLU(),
    )


def test_every_parameter_is_in_exactly_one_group():
    net = model()
    net[0].bias.requires_grad_(False)
    others, slopes = parameter_groups(net, weight_decay=0.1, alpha_lr=1e-4)
    ids = [id(p) for group in (others, slopes) for p in group["params"]]
    assert sorted(ids) == sorted(id(p) for p in net.parameters())
    assert {id(p) for p in slopes["params"]} == {id(net[1].alpha), id(net[4].weight), id(net[5].alpha)}
    assert others["weight_decay"] == 0.1 and "lr" not in others
    assert slopes["weight_decay"] == 0.0 and slopes["lr"] == 1e-4


def test_default_learning_rate_is_the_optimizers():
    optimizer = torch.optim.AdamW(parameter_groups(model(), weight_decay=0.1), lr=0.5)
    assert [group["lr"] for group in optimizer.param_groups] == [0.5, 0.5]


@pytest.mark.parametrize("net", [nn.Linear(2, 2), LearnableLeakyReLU()])
def test_empty_groups_are_left_out(net):
    (group,) = parameter_groups(net)
    assert len(group["params"]) == len(list(net.parameters()))


@pytest.mark.filterwarnings("ignore:.*FSDP")
@pytest.mark.filterwarnings("ignore:.*FullyShardedDataParallel")
def test_slopes_that_fsdp_flattened():
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        nets = [
            FullyShardedDataParallel(
                nn.Sequential(nn.Linear(4, 4), LearnableLeakyReLU()),
                device_id=torch.device("cpu"),
                use_orig_params=original,
            )
            for original in (True, False)
        ]
    finally:
        dist.destroy_process_group()
    assert [len(group["params"]) for group in parameter_groups(nets[0], weight_decay=0.1)] == [2, 1]
    for options in ({"weight_decay": 0.1}, {"alpha_lr": 0.1}):
        with pytest.raises(ValueError, match=r"slope of '_fsdp_wrapped_module\.1' .* use_orig_params=True"):
            parameter_groups(nets[1], **options)
    assert len(parameter_groups(nets[1])) == 1


def test_weight_decay_does_not_touch_slopes():
    net = model()
    optimizer = torch.optim.SGD(parameter_groups(net, weight_decay=0.5), lr=1.0)
    before = {name: parameter.detach().clone() for name, parameter in net.named_parameters()}
    for parameter in net.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    for name, parameter in net.named_parameters():
        slope = name in ("1.alpha", "4.weight", "5.alpha")
        torch.testing.assert_close(parameter.detach(), before[name] if slope else before[name] * 0.5)
