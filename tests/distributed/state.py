"""AlphaMonitor, checkpoints and copies of distributed models."""

import copy

import torch
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint.state_dict import get_model_state_dict, get_state_dict, set_state_dict

from leaky_ext import AlphaMonitor

from .common import alone, batch, check, close, mine, net, shard, tensor_parallel, train, whole


@check
def monitor(folder):
    single = net()
    expected = AlphaMonitor(single)
    alone(single, steps=3, each_step=lambda _: expected.step())
    for model, part in ((shard(net()), mine), (tensor_parallel(net()), lambda x: x)):
        watched = AlphaMonitor(model)
        train(model, part, steps=3, each_step=lambda _, watched=watched: watched.step())
        for a, b in zip(watched.rows(), expected.rows(), strict=True):
            for column in ("alpha_min", "alpha_mean", "alpha_max", "grad_norm"):
                close(a[column], b[column])


@check
def checkpoint(folder):
    """Saved by N processes; loaded by N into another model, and by one."""
    for name, build in {"fsdp": shard, "tp": tensor_parallel}.items():
        part = mine if name == "fsdp" else lambda x: x
        model = build(net())
        optimizer = torch.optim.Adam(model.parameters())
        (model(part(batch(0)[0]))).sum().backward()
        optimizer.step()
        state = dict(zip(("model", "optimizer"), get_state_dict(model, optimizer), strict=True))
        assert "1.alpha" in state["model"]
        dcp.save(state, checkpoint_id=folder / name)
        other = build(net(seed=1))
        other_optimizer = torch.optim.Adam(other.parameters())
        empty = dict(zip(("model", "optimizer"), get_state_dict(other, other_optimizer), strict=True))
        dcp.load(empty, checkpoint_id=folder / name)
        set_state_dict(other, other_optimizer, model_state_dict=empty["model"], optim_state_dict=empty["optimizer"])
        for a, b in zip(model.parameters(), other.parameters(), strict=True):
            assert torch.equal(whole(a.detach()), whole(b.detach()))
            assert torch.equal(whole(optimizer.state[a]["exp_avg"]), whole(other_optimizer.state[b]["exp_avg"]))
        plain = {"model": net(seed=2).state_dict()}
        dcp.load(plain, checkpoint_id=folder / name, no_dist=True)
        for key, value in get_model_state_dict(model).items():
            assert torch.equal(whole(value), plain["model"][key])


@check
def deepcopy_of_a_sharded_slope(folder):
    model = tensor_parallel(net())
    twin = copy.deepcopy(model)
    assert twin[1].alpha.placements == model[1].alpha.placements
