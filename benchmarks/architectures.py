"""Networks that require no other package, each built with nn.PReLU."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Residual(nn.Module):
    """ResNet's basic block."""

    def __init__(self, channels: int = 64) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(channels)
        self.act1 = nn.PReLU()
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(channels)
        self.act2 = nn.PReLU()

    def forward(self, x: Tensor) -> Tensor:
        y = self.act1(self.norm1(self.conv1(x)))
        return self.act2(self.norm2(self.conv2(y)) + x)


def residual_network() -> nn.Module:
    """Returns three stages of two basic blocks, as for CIFAR."""
    layers: list[nn.Module] = [nn.Conv2d(3, 32, 3, padding=1)]
    for channels in (32, 64, 128):
        layers += [Residual(channels), Residual(channels)]
        layers += [nn.Conv2d(channels, 2 * channels, 2, stride=2)] if channels < 128 else []
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(128, 10))


def mlp(width: int, hidden: int, layers: int, last: int) -> nn.Module:
    parts: list[nn.Module] = []
    for index in range(layers):
        parts += [nn.Linear(hidden if index else width, hidden), nn.PReLU()]
    return nn.Sequential(*parts, nn.Linear(hidden, last))


def conv_block() -> nn.Module:
    return nn.Sequential(nn.Conv2d(32, 32, 3, padding=1), nn.PReLU(), nn.Conv2d(32, 32, 3, padding=1), nn.PReLU())


class ImprovedResidual(nn.Module):
    """The block of ArcFace's iResNet (insightface): batch norm first, and PReLU between the two convolutions."""

    def __init__(self, channels_in: int, channels: int, stride: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.BatchNorm2d(channels_in),
            nn.Conv2d(channels_in, channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(channels),
            nn.PReLU(channels),
            nn.Conv2d(channels, channels, 3, stride, padding=1, bias=False),
            nn.BatchNorm2d(channels),
        )
        self.shortcut = nn.Sequential()
        if stride > 1 or channels_in != channels:
            self.shortcut.append(nn.Conv2d(channels_in, channels, 1, stride, bias=False))
            self.shortcut.append(nn.BatchNorm2d(channels))

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x) + self.shortcut(x)


def face_recognition() -> nn.Module:
    """Returns iResNet-50 for images of 112 px, as ArcFace (https://arxiv.org/abs/1801.07698) trains it."""
    layers: list[nn.Module] = [nn.Conv2d(3, 64, 3, padding=1, bias=False), nn.BatchNorm2d(64), nn.PReLU(64)]
    before = 64
    for channels, count in ((64, 3), (128, 4), (256, 14), (512, 3)):
        for index in range(count):
            layers.append(ImprovedResidual(before, channels, stride=2 if index == 0 else 1))
            before = channels
    layers += [nn.BatchNorm2d(512), nn.Flatten(), nn.Linear(512 * 7 * 7, 512), nn.BatchNorm1d(512)]
    return nn.Sequential(*layers)


class TemporalBlock(nn.Module):
    """The one-dimensional convolutional block of Conv-TasNet: returns (residual, skip)."""

    def __init__(self, channels: int, hidden: int, dilation: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv1d(channels, hidden, 1),
            nn.PReLU(),
            nn.GroupNorm(1, hidden),
            nn.Conv1d(hidden, hidden, 3, padding=dilation, dilation=dilation, groups=hidden),
            nn.PReLU(),
            nn.GroupNorm(1, hidden),
        )
        self.residual, self.skip = nn.Conv1d(hidden, channels, 1), nn.Conv1d(hidden, channels, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y = self.layers(x)
        return x + self.residual(y), self.skip(y)


class SpeechSeparation(nn.Module):
    """Conv-TasNet (https://arxiv.org/abs/1809.07454): N=512, L=16, B=Sc=128, H=512, P=3, X=8, R=3."""

    def __init__(self, filters: int = 512, length: int = 16, channels: int = 128, speakers: int = 2) -> None:
        super().__init__()
        self.encoder = nn.Conv1d(1, filters, length, length // 2, bias=False)
        self.bottleneck = nn.Sequential(nn.GroupNorm(1, filters), nn.Conv1d(filters, channels, 1))
        self.blocks = nn.ModuleList(TemporalBlock(channels, 512, 2**power) for _ in range(3) for power in range(8))
        self.mask = nn.Sequential(nn.PReLU(), nn.Conv1d(channels, speakers * filters, 1), nn.Sigmoid())
        self.decoder = nn.ConvTranspose1d(filters, 1, length, length // 2, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        code = torch.relu(self.encoder(x))
        y, skips = self.bottleneck(code), torch.zeros(())
        for block in self.blocks:
            y, skip = block(y)
            skips = skips + skip
        masks = self.mask(skips).unflatten(1, (-1, code.shape[1]))
        return self.decoder((masks * code[:, None]).flatten(0, 1))
