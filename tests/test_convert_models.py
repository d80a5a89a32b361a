"""convert on models that people use, each skipped where its package (requirements-models.txt) is not installed."""

import contextlib
import copy
import importlib
import importlib.util
import sys
from unittest.mock import MagicMock

import pytest
import torch
from torch import nn

from leaky_ext import LearnableLeakyReLU, StraightThroughReLU, convert

pytestmark = pytest.mark.slow

TORCHVISION = ("", ".datasets", ".ops", ".ops.boxes", ".transforms", ".transforms.functional", ".utils")


@contextlib.contextmanager
def without_torchvision():
    """Import packages that ask for torchvision, but whose networks do not use it, on machines that have none."""
    names = [f"torchvision{name}" for name in TORCHVISION] if importlib.util.find_spec("torchvision") is None else []
    names += [] if importlib.util.find_spec("requests") else ["requests", "requests.adapters"]
    sys.modules.update({name: MagicMock() for name in names})
    try:
        yield
    finally:
        for name in names:
            del sys.modules[name]


def load(package, module, name):
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"{package} is not installed")
    with without_torchvision():
        return getattr(importlib.import_module(module), name)


def face_detector(stage, size):
    """A stage of MTCNN, with the trained weights that facenet-pytorch ships."""
    return load("facenet_pytorch", "facenet_pytorch.models.mtcnn", stage)(), (2, 3, size, size)


def medical_unet():
    """MONAI's UNet, here in three dimensions, with its default activation, PReLU."""
    unet = load("monai", "monai.networks.nets", "UNet")
    return unet(3, 1, 2, channels=(8, 16, 32), strides=(2, 2), num_res_units=2), (2, 1, 16, 16, 16)


def super_resolution():
    """SRVGGNetCompact, the network of Real-ESRGAN's compact models, as spandrel has it."""
    net = load("spandrel", "spandrel.architectures.Compact.__arch.SRVGG", "SRVGGNetCompact")
    return net(num_feat=16, num_conv=6, upscale=2), (2, 3, 12, 12)


def transformer():
    """OPT, whose MLPs are ReLU, from a configuration, without pretrained weights."""
    transformers = pytest.importorskip("transformers")
    config = transformers.OPTConfig(
        vocab_size=64, hidden_size=32, word_embed_proj_dim=32, ffn_dim=64, num_hidden_layers=3,
        num_attention_heads=4, max_position_embeddings=32, dropout=0.0,
    )  # fmt: skip
    return transformers.OPTForCausalLM(config), None


PRELU = {
    "facenet-pytorch PNet": (lambda: face_detector("PNet", 24), 3),
    "facenet-pytorch RNet": (lambda: face_detector("RNet", 24), 4),
    "facenet-pytorch ONet": (lambda: face_detector("ONet", 48), 5),
    "monai UNet": (medical_unet, 9),
    "spandrel SRVGGNetCompact": (super_resolution, 7),
}


def tensors(output):
    if isinstance(output, torch.Tensor):
        return [output]
    return list(output) if isinstance(output, tuple) else [output.logits]


def path(model, inputs, steps=20):
    torch.manual_seed(0)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-4, momentum=0.9)
    losses = []
    for step in range(steps):
        optimizer.zero_grad()
        loss = sum(y.square().mean() for y in tensors(model(inputs(step))))
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def same_path(old, new, inputs):
    start = [parameter.detach().clone() for parameter in old.parameters()]
    losses, new_losses = path(old, inputs), path(new, inputs)
    torch.testing.assert_close(new_losses, losses, rtol=1e-6, atol=1e-6)
    for a, b, first in zip(new.parameters(), old.parameters(), start, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-6)
        # All but biases that a normalization takes away again.
        assert b.ndim == 1 or not torch.equal(b, first)


@pytest.mark.parametrize("make, count", PRELU.values(), ids=PRELU)
def test_prelu_models(make, count):
    torch.manual_seed(0)
    old, shape = make()
    new = copy.deepcopy(old)
    done = convert(new)
    assert len(done) == count
    assert not any(isinstance(module, nn.PReLU) for module in new.modules())
    new.load_state_dict(old.state_dict(), strict=True)
    x = torch.randn(shape)
    for a, b in zip(tensors(new(x)), tensors(old(x)), strict=True):
        assert torch.equal(a, b)
    same_path(old, new, lambda step: torch.randn(shape, generator=torch.Generator().manual_seed(step)))


def test_a_transformer_with_a_relu_mlp():
    torch.manual_seed(0)
    old, _ = transformer()

    def tokens(step):
        return torch.randint(64, (2, 16), generator=torch.Generator().manual_seed(step))

    straight = copy.deepcopy(old)
    assert [change.names for change in convert(straight, {nn.ReLU: "straight_through"})] == [
        (f"model.decoder.layers.{layer}.activation_fn",) for layer in range(3)
    ]
    assert torch.equal(straight(tokens(0)).logits, old(tokens(0)).logits)
    # With a slope of 0 the gradient is ReLU's too.
    same = copy.deepcopy(old)
    convert(same, {"*.activation_fn": "straight_through"}, alpha=0.0)
    assert sum(isinstance(module, StraightThroughReLU) for module in same.modules()) == 3
    # And a learnable slope that starts there leaves the outputs as they were.
    learnable = copy.deepcopy(old)
    convert(learnable, {nn.ReLU: "learnable"}, alpha=0.0)
    assert sum(isinstance(module, LearnableLeakyReLU) for module in learnable.modules()) == 3
    assert torch.equal(learnable(tokens(0)).logits, old(tokens(0)).logits)
    same_path(old, same, tokens)
