"""Models that come with microsfl, and the one door through which others are imported.

Each is an `nn.Sequential` of named stages with the class attribute `default_cut`: the last layer of the front and
the last layer of the body. Pooling has fixed windows, computed from the input's shape: on CUDA the gradients of
torch's adaptive pooling are not deterministic, and committed weights have to be.
"""

from __future__ import annotations

import inspect
import pkgutil
from collections import OrderedDict
from collections.abc import Callable, Collection, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ..errors import InvalidSetting, ModelNotAllowed, did_you_mean

Factory = Callable[[tuple[int, ...], int], nn.Module]


class Mlp(nn.Sequential):
    """Stages flatten, fc1 | relu1, fc2, relu2 | fc3."""

    default_cut: ClassVar[tuple[str, str]] = ("fc1", "relu2")


class LinearFront(nn.Sequential):
    """Stages flatten, fc1 | fc2, relu | fc3."""

    default_cut: ClassVar[tuple[str, str]] = ("fc1", "relu")


class Cnn(nn.Sequential):
    """Stages conv1, relu1, pool1 | conv2, relu2, pool2, flatten, fc1, relu3 | fc2."""

    default_cut: ClassVar[tuple[str, str]] = ("pool1", "relu3")


class ResNet(nn.Sequential):
    """Stages stem | layer1, layer2, layer3, layer4, pool | head."""

    default_cut: ClassVar[tuple[str, str]] = ("stem", "pool")


class Residual(nn.Module):
    """Two 3x3 convolutions and a shortcut: He et al. 2015, arXiv:1512.03385, figure 2.

    [n, inputs, h, w] -> [n, outputs, ceil(h / stride), ceil(w / stride)], float32. Where the shape changes, the
    shortcut is a 1x1 projection (option B of the paper).
    """

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(outputs)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            projection = nn.Conv2d(inputs, outputs, 1, stride=stride, bias=False)
            self.shortcut = nn.Sequential(projection, nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        hidden = torch.relu(self.norm1(self.conv1(x)))
        hidden = self.norm2(self.conv2(hidden))
        return torch.relu(hidden + self.shortcut(x))


class GlobalMean(nn.Module):
    """Mean over height and width: [n, channels, h, w] -> [n, channels]."""

    def forward(self, x: Tensor) -> Tensor:
        return x.mean(dim=(2, 3))


def mlp(input_shape: tuple[int, ...], classes: int) -> nn.Module:
    """Three linear layers with 64 features between them, for samples of any shape.

    [n, *input_shape] -> logits [n, classes]. By default the front is one linear layer without an activation.
    """
    features = torch.Size(input_shape).numel()
    return Mlp(
        OrderedDict(
            flatten=nn.Flatten(),
            fc1=nn.Linear(features, 64),
            relu1=nn.ReLU(),
            fc2=nn.Linear(64, 64),
            relu2=nn.ReLU(),
            fc3=nn.Linear(64, classes),
        )
    )


def linear_front(input_shape: tuple[int, ...], classes: int) -> nn.Module:
    """A linear projection to 64 features and a network of one hidden layer on them, for samples of any shape.

    [n, *input_shape] -> logits [n, classes]. Unlike in `mlp`, nothing stands between the first two linear layers: the
    front can only choose a subspace of the input, which is what makes it worth training against an adversary.
    """
    features = torch.Size(input_shape).numel()
    return LinearFront(
        OrderedDict(
            flatten=nn.Flatten(),
            fc1=nn.Linear(features, 64),
            fc2=nn.Linear(64, 64),
            relu=nn.ReLU(),
            fc3=nn.Linear(64, classes),
        )
    )


def cnn(input_shape: tuple[int, ...], classes: int) -> nn.Module:
    """Two convolutions and two linear layers, for images of any channels and at least 2x2 pixels.

    [n, channels, height, width] -> logits [n, classes].

    Raises:
        InvalidSetting: when input_shape is not that of such an image.
    """
    channels, height, width = _image_shape("cnn", input_shape, smallest=2)
    window, pooled = _about_4x4(height // 2, width // 2)
    return Cnn(
        OrderedDict(
            conv1=nn.Conv2d(channels, 16, 3, padding=1),
            relu1=nn.ReLU(),
            pool1=nn.MaxPool2d(2),
            conv2=nn.Conv2d(16, 32, 3, padding=1),
            relu2=nn.ReLU(),
            pool2=nn.MaxPool2d(window),
            flatten=nn.Flatten(),
            fc1=nn.Linear(32 * pooled, 128),
            relu3=nn.ReLU(),
            fc2=nn.Linear(128, classes),
        )
    )


def resnet18(input_shape: tuple[int, ...], classes: int) -> nn.Module:
    """ResNet-18 (He et al. 2015, arXiv:1512.03385, table 1), written from the paper.

    [n, channels, height, width] -> logits [n, classes]. Images with sides of at most 64 pixels get the stem of the
    paper's CIFAR networks (3x3, no pooling), larger ones that of its ImageNet networks (7x7, stride 2, max pooling).

    Raises:
        InvalidSetting: when input_shape is not that of an image.
    """
    channels, height, width = _image_shape("resnet18", input_shape, smallest=1)
    model = ResNet(
        OrderedDict(
            stem=_small_stem(channels) if max(height, width) <= 64 else _large_stem(channels),
            layer1=_layer(64, 64, stride=1),
            layer2=_layer(64, 128, stride=2),
            layer3=_layer(128, 256, stride=2),
            layer4=_layer(256, 512, stride=2),
            pool=GlobalMean(),
            head=nn.Linear(512, classes),
        )
    )
    _initialize_convolutions(model)
    return model


ZOO: dict[str, Factory] = {"mlp": mlp, "linear-front": linear_front, "cnn": cnn, "resnet18": resnet18}


def build_model(
    name: str, *, input_shape: Sequence[int], classes: int, seed: int, allowed: Collection[str]
) -> nn.Module:
    """A model with initial weights that are bit-equal in every process given the same arguments.

    Args:
        name: of the zoo, or `package.module:function`, which is called with (input_shape, classes).
        input_shape: of one sample, without the batch dimension.
        seed: of torch's CPU generator while the weights are drawn; its state is put back afterwards.
        allowed: import paths that may be imported. The zoo needs no permission.

    Raises:
        ModelNotAllowed: for an import path that is not, letter by letter, in `allowed`.
        InvalidSetting: for an unknown name, or a function that cannot be imported, called, or returns no nn.Module.
    """
    factory = _factory(name, allowed)
    # Only the CPU generator: torch.manual_seed would also reseed every GPU, which fork_rng here does not put back.
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        model: object = factory(tuple(input_shape), classes)
    if not isinstance(model, nn.Module):
        raise InvalidSetting(f"model.name: '{name}' returned {type(model).__name__}; it must return an nn.Module.")
    return model


def _factory(name: str, allowed: Collection[str]) -> Factory:
    if name in ZOO:
        return ZOO[name]
    if ":" not in name:
        raise InvalidSetting(
            f"model.name: '{name}' is unknown.{did_you_mean(name, ZOO)} Or name your own as 'package.module:function'."
        )
    if name not in allowed:
        raise ModelNotAllowed.of(name, "allow_models")
    return _imported(name)


def _imported(name: str) -> Factory:
    try:
        found: Any = pkgutil.resolve_name(name)
    except (ImportError, AttributeError, ValueError, SyntaxError) as error:
        raise InvalidSetting(f"model.name: '{name}' cannot be imported: {error}.") from error
    if not callable(found):
        raise InvalidSetting(f"model.name: '{name}' is {type(found).__name__}; it must be a function.")
    try:
        inspect.signature(found).bind((1,), 1)
    except (TypeError, ValueError) as error:
        raise InvalidSetting(f"model.name: '{name}' does not take (input_shape, classes): {error}.") from error
    factory: Factory = found
    return factory


def _image_shape(model: str, input_shape: tuple[int, ...], *, smallest: int) -> tuple[int, int, int]:
    if len(input_shape) != 3 or min(input_shape[1:]) < smallest:
        raise InvalidSetting(
            f"model.name = '{model}' needs images, [channels, height, width] of at least {smallest}x{smallest} pixels; "
            f"samples are of shape {list(input_shape)}."
        )
    channels, height, width = input_shape
    return channels, height, width


def _about_4x4(height: int, width: int) -> tuple[tuple[int, int], int]:
    """A pooling window that leaves about 4x4 positions (at most 7x7), and how many positions it leaves."""
    window = (max(1, height // 4), max(1, width // 4))
    return window, (height // window[0]) * (width // window[1])


def _small_stem(channels: int) -> nn.Module:
    return nn.Sequential(
        OrderedDict(
            conv=nn.Conv2d(channels, 64, 3, padding=1, bias=False),
            norm=nn.BatchNorm2d(64),
            relu=nn.ReLU(),
        )
    )


def _large_stem(channels: int) -> nn.Module:
    return nn.Sequential(
        OrderedDict(
            conv=nn.Conv2d(channels, 64, 7, stride=2, padding=3, bias=False),
            norm=nn.BatchNorm2d(64),
            relu=nn.ReLU(),
            pool=nn.MaxPool2d(3, stride=2, padding=1),
        )
    )


def _layer(inputs: int, outputs: int, *, stride: int) -> nn.Module:
    return nn.Sequential(Residual(inputs, outputs, stride), Residual(outputs, outputs, 1))


def _initialize_convolutions(model: nn.Module) -> None:
    """Normal with variance 2 / fan-out: He et al. 2015, arXiv:1502.01852, equation 14."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
