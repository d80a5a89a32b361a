"""Architectures that people train, and their blocks. All are built with nn.PReLU, which contenders replace."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from .architectures import Residual, SpeechSeparation, conv_block, face_recognition, mlp, residual_network


@dataclass(frozen=True, kw_only=True)
class Network:
    build: Callable[[], nn.Module]
    shape: tuple[int, ...]
    package: str = ""  # required package (requirements-models.txt)
    channels_last: bool = False
    autocast: torch.dtype | None = None  # float16 also uses a GradScaler
    large: bool = False  # a step takes seconds: only its eager training step is measured
    fills_gpu: bool = False  # the batch fills a GPU: measured only on GPUs

    @property
    def available(self) -> bool:
        return not self.package or importlib.util.find_spec(self.package) is not None

    @property
    def memory_format(self) -> torch.memory_format:
        if not self.channels_last:
            return torch.contiguous_format
        return torch.channels_last_3d if len(self.shape) == 5 else torch.channels_last

    def runs_on(self, device: str) -> bool:
        """Returns whether the network is measured on a device. CPUs skip float16, and bfloat16 without AVX512-BF16."""
        if device == "cuda" or self.fills_gpu:
            return device == "cuda" and self.fills_gpu
        return self.autocast is None or (self.autocast == torch.bfloat16 and torch.cpu._is_avx512_bf16_supported())


class Missing(ModuleType):
    """Replaces a package that the networks import but do not need."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return object


@contextlib.contextmanager
def without_torchvision() -> Iterator[None]:
    parts = ("", ".datasets", ".ops", ".ops.boxes", ".transforms", ".transforms.functional", ".utils")
    names = [f"torchvision{part}" for part in parts] if importlib.util.find_spec("torchvision") is None else []
    names += [] if importlib.util.find_spec("requests") else ["requests", "requests.adapters"]
    sys.modules.update({name: Missing(name) for name in names})
    try:
        yield
    finally:
        for name in names:
            del sys.modules[name]


def load(module: str, name: str) -> Any:
    with without_torchvision():
        return getattr(importlib.import_module(module), name)


def face_detector(stage: str) -> nn.Module:
    """Returns a stage of MTCNN, with the trained weights of facenet-pytorch."""
    return load("facenet_pytorch.models.mtcnn", stage)()


def medical_unet(dimensions: int, channels: tuple[int, ...]) -> nn.Module:
    """Returns MONAI's UNet with its default activation (PReLU) and its default normalization (instance)."""
    unet = load("monai.networks.nets", "UNet")
    return unet(dimensions, 1, 2, channels=channels, strides=(2,) * (len(channels) - 1), num_res_units=2)


def super_resolution() -> nn.Module:
    """Returns SRVGGNetCompact as in Real-ESRGAN: 64 features, 16 convolutions and one slope per channel."""
    return load("spandrel.architectures.Compact.__arch.SRVGG", "SRVGGNetCompact")()


FACENET, MONAI, SPANDREL = "facenet_pytorch", "monai", "spandrel"
NETWORKS: dict[str, Network] = {
    "facenet PNet": Network(build=lambda: face_detector("PNet"), shape=(8, 3, 96, 96), package=FACENET),
    "facenet RNet": Network(build=lambda: face_detector("RNet"), shape=(64, 3, 24, 24), package=FACENET),
    "facenet ONet": Network(build=lambda: face_detector("ONet"), shape=(32, 3, 48, 48), package=FACENET),
    "MONAI UNet 2-D": Network(build=lambda: medical_unet(2, (16, 32, 64, 128)), shape=(4, 1, 128, 128), package=MONAI),
    "MONAI UNet 3-D": Network(build=lambda: medical_unet(3, (16, 32, 64)), shape=(1, 1, 48, 48, 48), package=MONAI),
    **{
        f"Real-ESRGAN compact, {size} px": Network(build=super_resolution, shape=(1, 3, size, size), package=SPANDREL)
        for size in (64, 128, 256)
    },
    # The batch of its training.
    "Real-ESRGAN compact, 16 x 96 px": Network(
        build=super_resolution, shape=(16, 3, 96, 96), package=SPANDREL, large=True
    ),
    "iResNet-50": Network(build=face_recognition, shape=(4, 3, 112, 112), large=True),
    "Conv-TasNet, 1 s": Network(build=SpeechSeparation, shape=(1, 1, 8_000), large=True),
    "residual network": Network(build=residual_network, shape=(16, 3, 32, 32)),
    "MLP": Network(build=lambda: mlp(784, 1024, 3, 10), shape=(256, 784)),
}
BLOCKS: dict[str, Network] = {
    "residual block": Network(build=Residual, shape=(8, 64, 32, 32)),
    "residual block, channels_last": Network(build=Residual, shape=(8, 64, 32, 32), channels_last=True),
    "conv block": Network(build=conv_block, shape=(8, 32, 32, 32)),
    "MLP block": Network(build=lambda: mlp(256, 1024, 1, 256), shape=(1024, 256)),
}


def as_trained(name: str, network: Network) -> Iterator[tuple[str, Network]]:
    """Yields the network in contiguous float32 and in each other precision and memory format that people train with."""
    images = len(network.shape) >= 4  # only these can be channels_last
    network = replace(network, large=False)
    yield f"{name} (fp32)", network
    if images and not network.fills_gpu:
        yield f"{name} (fp32, channels_last)", replace(network, channels_last=True)
    layout = ", channels_last" if images else ""
    for word, dtype in (("bf16", torch.bfloat16), ("fp16", torch.float16)):
        yield f"{name} ({word}{layout})", replace(network, channels_last=images, autocast=dtype)


FOR_GPUS: dict[str, Network] = {
    "Real-ESRGAN compact, 16 x 96 px": NETWORKS["Real-ESRGAN compact, 16 x 96 px"],
    "Real-ESRGAN compact, 8 x 256 px": Network(build=super_resolution, shape=(8, 3, 256, 256), package=SPANDREL),
    "iResNet-50, batch 128": Network(build=face_recognition, shape=(128, 3, 112, 112)),
    "MONAI UNet 2-D, 16 x 256 px": replace(NETWORKS["MONAI UNet 2-D"], shape=(16, 1, 256, 256)),
    "Conv-TasNet, 4 s": Network(build=SpeechSeparation, shape=(1, 1, 32_000)),
    "residual network, batch 512": Network(build=residual_network, shape=(512, 3, 32, 32)),
}
# The networks whose step takes less than a second on two cores, and the networks that fill a GPU.
TRAINED: dict[str, Network] = {
    variant: network
    for name, original in (
        *((name, network) for name, network in NETWORKS.items() if not re.search("256 px|16 x 96", name)),
        *((name, replace(network, fills_gpu=True)) for name, network in FOR_GPUS.items()),
    )
    for variant, network in as_trained(name, original)
}
ALL: dict[str, Network] = NETWORKS | BLOCKS | TRAINED


def with_activation(model: nn.Module, make: Callable[[nn.PReLU], nn.Module]) -> nn.Module:
    """Replaces every nn.PReLU of the model in place, and returns the model."""
    for name, prelu in list(model.named_modules()):
        if isinstance(prelu, nn.PReLU):
            parent, _, child = name.rpartition(".")
            setattr(model.get_submodule(parent), child, make(prelu))
    return model


def outputs(result: Any) -> list[Tensor]:
    return [result] if isinstance(result, Tensor) else list(result)


def build(name: str, device: str) -> tuple[nn.Module, Tensor]:
    """Returns a network or block and its input, with the same weights and values every time."""
    network = ALL[name]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model, x = network.build().to(device), torch.randn(network.shape).to(device)
    return model.to(memory_format=network.memory_format), x.to(memory_format=network.memory_format)
