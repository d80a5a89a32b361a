"""Networks that tests convert, revert and export."""

import importlib.util

import pytest
import torch
from torch import nn

from benchmarks import networks


class Net(nn.Module):
    """PReLUs with one and with many slopes, one of them shared; LeakyReLU and ReLU, also in place."""

    def __init__(self):
        super().__init__()
        self.shared = nn.PReLU(8, init=0.1)
        self.first = nn.Sequential(nn.Conv2d(3, 8, 3), self.shared, nn.Conv2d(8, 8, 3), self.shared)
        self.second = nn.ModuleList(
            [nn.Conv2d(8, 8, 3), nn.LeakyReLU(0.2, inplace=True), nn.Conv2d(8, 4, 1), nn.PReLU()]
        )
        self.relu = nn.ReLU(inplace=True)
        self.head = nn.Linear(4, 2)

    def forward(self, x):
        x = self.first(x)
        for layer in self.second:
            x = layer(x)
        return self.head(self.relu(x.mean((2, 3))))


def load(package, module, name):
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"{package} is not installed")
    return networks.load(module, name)


def face_detector(stage, size):
    """Returns a stage of MTCNN, with the trained weights of facenet-pytorch."""
    return load("facenet_pytorch", "facenet_pytorch.models.mtcnn", stage)(), (2, 3, size, size)


def medical_unet(dimensions):
    """MONAI's UNet, with its default activation, PReLU."""
    unet = load("monai", "monai.networks.nets", "UNet")
    net = unet(dimensions, 1, 2, channels=(8, 16, 32), strides=(2, 2), num_res_units=2)
    return net, (2, 1, *[16] * dimensions)


def super_resolution():
    """Returns spandrel's SRVGGNetCompact, the network of Real-ESRGAN's compact models."""
    net = load("spandrel", "spandrel.architectures.Compact.__arch.SRVGG", "SRVGGNetCompact")
    return net(num_feat=16, num_conv=6, upscale=2), (2, 3, 12, 12)


def transformer():
    """Returns OPT, whose MLPs use ReLU, without pretrained weights."""
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
    "monai UNet, 2-D": (lambda: medical_unet(2), 9),
    "monai UNet, 3-D": (lambda: medical_unet(3), 9),
    "spandrel SRVGGNetCompact": (super_resolution, 7),
}


def tensors(output):
    if isinstance(output, torch.Tensor):
        return [output]
    return list(output) if isinstance(output, tuple) else [output.logits]
