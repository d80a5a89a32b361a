"""The two tasks of activations.py: seeded data and a network for each."""

from collections.abc import Callable
from functools import cache
from pathlib import Path

import matplotlib
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor, nn
from torch.nn.functional import affine_grid, grid_sample

Activation = Callable[[int], nn.Module]
"""Number of channels -> a new activation."""

SIZE = 20
CLASSES = "ABCDEFGHIJKLMNOPQRSTUVWXYZabdefghnqrt23456789"  # EMNIST's balanced classes, without 0 and 1
DEJAVU = ("Sans", "SansMono", "Serif")
FONTS = [
    *(f"DejaVu{family}{style}" for family in DEJAVU for style in ("", "-Bold")),
    *("DejaVuSans-Oblique", "DejaVuSans-BoldOblique", "DejaVuSansMono-Oblique", "DejaVuSansMono-BoldOblique"),
    *("DejaVuSerif-Italic", "DejaVuSerif-BoldItalic"),
    *(f"STIXGeneral{style}" for style in ("", "Bol", "Italic", "BolIta")),
    *("cmr10", "cmb10", "cmss10", "cmtt10", "cmti10"),
]


@cache
def glyphs() -> Tensor:
    """Returns every class in every font of matplotlib, as [classes, fonts, 48, 48] in [0, 1]."""
    folder = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    result = torch.empty(len(CLASSES), len(FONTS), 48, 48)
    for column, name in enumerate(FONTS):
        font = ImageFont.truetype(folder / f"{name}.ttf", 44)
        for row, character in enumerate(CLASSES):
            image = Image.new("L", (48, 48))
            ImageDraw.Draw(image).text((24, 24), character, fill=255, font=font, anchor="mm")
            result[row, column] = torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8).view(48, 48) / 255
    return result


def characters(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Returns distorted characters on grey with noise, as [count, 1, 20, 20], and their classes."""
    generator = torch.Generator().manual_seed(seed)

    def uniform(spread: float, *shape: int) -> Tensor:
        return spread * (2 * torch.rand(count, *shape, generator=generator) - 1)

    target = torch.randint(len(CLASSES), (count,), generator=generator)
    font = torch.randint(len(FONTS), (count,), generator=generator)
    angle, shear, scale = uniform(0.25), uniform(0.25), 1 / (1 + uniform(0.2))
    sine, cosine = scale * angle.sin(), scale * angle.cos()
    map_ = torch.stack([cosine, shear - sine, uniform(0.15), sine, cosine, uniform(0.15)], 1).view(count, 2, 3)
    grid = affine_grid(map_, [count, 1, SIZE, SIZE], align_corners=False)
    image = grid_sample(glyphs()[target, font].unsqueeze(1), grid, align_corners=False)
    image = image * (0.75 + uniform(0.25, 1, 1, 1)) + uniform(0.25, 1, 1, 1)
    return image + 0.15 * torch.randn(image.shape, generator=generator), target


def convnet(activation: Activation) -> nn.Sequential:
    return nn.Sequential(
        *(nn.Conv2d(1, 16, 3, padding=1), activation(16), nn.MaxPool2d(2)),
        *(nn.Conv2d(16, 32, 3, padding=1), activation(32), nn.MaxPool2d(2)),
        *(nn.Conv2d(32, 48, 3, padding=1), activation(48), nn.Flatten()),
        *(nn.Linear(48 * (SIZE // 4) ** 2, 64), activation(64), nn.Linear(64, len(CLASSES))),
    )


def wave() -> tuple[Tensor, Tensor]:
    """Returns 128 points of sin(3x)."""
    x = torch.linspace(-(3**0.5), 3**0.5, 128).unsqueeze(1)
    return x, (3 * x).sin()


def narrow_net(activation: Activation, depth: int = 20, width: int = 5) -> nn.Sequential:
    """Returns a network so deep and narrow that ReLU often kills a whole layer. He initialization, zero biases."""
    layers: list[nn.Module] = []
    for inputs in [1] + [width] * (depth - 1):
        layers += [nn.Linear(inputs, width), activation(width)]
    net = nn.Sequential(*layers, nn.Linear(width, 1))
    for layer in net:
        if isinstance(layer, nn.Linear):
            nn.init.kaiming_normal_(layer.weight)
            nn.init.zeros_(layer.bias)
    return net
