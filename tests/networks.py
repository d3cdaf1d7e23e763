"""Small networks, one for each way in which layers hang together; a batch that fits each."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

IMAGE = (2, 3, 8, 8)
ROW = (4, 6)


def seeded(make: Callable[[], nn.Module], seed: int = 0) -> nn.Module:
    """``make()`` with distinct weights, and batch norms whose statistics and offsets are not the identity."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = make()
        for module in model.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.running_mean is not None:
                module.running_mean.normal_()
                module.running_var.uniform_(0.5, 2.0)  # type: ignore[operator,union-attr]
                if module.affine:
                    nn.init.normal_(module.weight)
                    nn.init.normal_(module.bias)
    return model


def batch(*shape: int, seed: int = 1) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 10), nn.Tanh(), nn.Linear(10, 3))


def cnn(bias: bool = True) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1, bias=bias),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(8, 12, 3, padding=1, bias=bias),
        nn.ReLU(),
        nn.AvgPool2d(2),
        nn.Flatten(),
        nn.Linear(12 * 4, 16),
        nn.ReLU(),
        nn.Linear(16, 3),
    )


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.inner = nn.Conv2d(8, 6, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(6)
        self.outer = nn.Conv2d(6, 8, 3, padding=1)
        self.head = nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.stem(x))
        x = x + self.outer(torch.relu(self.norm(self.inner(x))))
        return self.head(x.mean((2, 3)))


def depthwise() -> nn.Module:
    """As MobileNet: 1×1, depthwise, 1×1."""
    return nn.Sequential(
        nn.Conv2d(3, 8, 1, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU6(),
        nn.Conv2d(8, 8, 3, padding=1, groups=8, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU6(),
        nn.Conv2d(8, 6, 1),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(6, 3),
    )


def transposed() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.ConvTranspose2d(6, 8, 2, stride=2),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 4, 1),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(4, 3),
    )


def depthwise_transposed() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 6, 1),
        nn.ConvTranspose2d(6, 6, 2, stride=2, groups=6),
        nn.Conv2d(6, 4, 1),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(4, 3),
    )


class Concat(nn.Module):
    """As DenseNet: every layer reads all earlier ones."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 4, 3, padding=1)
        self.second = nn.Conv2d(4, 4, 3, padding=1)
        self.third = nn.Conv2d(8, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(12)
        self.head = nn.Linear(12, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        one = torch.relu(self.first(x))
        two = torch.relu(self.second(one))
        both = torch.cat([one, two], 1)
        three = torch.relu(self.third(both))
        return self.head(self.norm(torch.cat([both, three], 1)).mean((2, 3)))


def prelu() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.PReLU(8), nn.Conv2d(8, 6, 3), nn.PReLU(), nn.Flatten(), nn.Linear(6 * 16, 3)
    )


def statistics_only() -> nn.Module:
    """A batch norm without weights."""
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8, affine=False), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, 3)
    )


def conv1d() -> nn.Module:
    return nn.Sequential(
        nn.Conv1d(3, 8, 3), nn.BatchNorm1d(8), nn.ReLU(), nn.Conv1d(8, 4, 1), nn.Flatten(), nn.Linear(4 * 6, 3)
    )


def conv3d() -> nn.Module:
    return nn.Sequential(
        nn.Conv3d(3, 6, 2), nn.BatchNorm3d(6), nn.ReLU(), nn.AdaptiveAvgPool3d(1), nn.Flatten(), nn.Linear(6, 3)
    )


def grouped() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3),
        nn.Conv2d(8, 8, 3, groups=2),
        nn.Conv2d(8, 6, 1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(6, 3),
    )


class LayerNormed(nn.Module):
    """Its residual stream passes a layer norm; its hidden layer does not."""

    def __init__(self) -> None:
        super().__init__()
        self.enter = nn.Linear(6, 8)
        self.norm = nn.LayerNorm(8)
        self.up = nn.Linear(8, 16)
        self.down = nn.Linear(16, 8)
        self.head = nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.enter(x)
        x = x + self.down(torch.relu(self.up(self.norm(x))))
        return self.head(x)


class Attentive(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.enter = nn.Linear(6, 8)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.hidden = nn.Linear(8, 10)
        self.head = nn.Linear(10, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.enter(x)
        x = self.attention(x, x, x)[0]
        return self.head(torch.relu(self.hidden(x.mean(1))))


class Recurrent(nn.Module):
    """Reads ``(n, time, 6)`` with an LSTM or another recurrent layer."""

    def __init__(self, kind: type[nn.RNNBase] = nn.LSTM, **options: Any) -> None:
        super().__init__()
        self.enter = nn.Linear(6, 5)
        self.memory = kind(5, 7, batch_first=True, **options)
        width = (options.get("proj_size") or 7) * (2 if options.get("bidirectional") else 1)
        self.hidden = nn.Linear(width, 6)
        self.head = nn.Linear(6, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(torch.relu(self.hidden(self.memory(self.enter(x))[0][:, -1])))


class HardCodedView(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.pool = nn.AdaptiveAvgPool2d(4)
        self.head = nn.Linear(64, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.pool(torch.relu(self.conv(x))).view(-1, 64))


class HalvedView(nn.Module):
    """A view that keeps running, and mixes up examples, when half of the channels are gone."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.mix = nn.Linear(8, 8)
        self.head = nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        pooled = torch.relu(self.conv(x)).mean((2, 3))
        wide = torch.cat([pooled, pooled], 1).view(-1, 8)
        return self.head(self.mix(wide))


class Chunked(nn.Module):
    """A gated unit: one half of the channels scales the other."""

    def __init__(self) -> None:
        super().__init__()
        self.both = nn.Linear(6, 12)
        self.head = nn.Linear(6, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        value, gate = self.both(x).chunk(2, dim=1)
        return self.head(value * torch.sigmoid(gate))


class ChannelMean(nn.Module):
    """Takes a mean over the channels, which removing some of them changes."""

    def __init__(self) -> None:
        super().__init__()
        self.enter = nn.Linear(6, 8)
        self.head = nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden = torch.relu(self.enter(x))
        return self.head(hidden - hidden.mean(1, keepdim=True))


class Tied(nn.Module):
    """Two layers share one weight."""

    def __init__(self) -> None:
        super().__init__()
        self.enter = nn.Linear(6, 8)
        self.first = nn.Linear(8, 8)
        self.second = nn.Linear(8, 8)
        self.second.weight = self.first.weight
        self.head = nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.enter(x))
        x = torch.relu(self.first(x))
        return self.head(torch.relu(self.second(x)))


class Reused(nn.Module):
    """One layer is called twice."""

    def __init__(self) -> None:
        super().__init__()
        self.enter = nn.Linear(6, 8)
        self.again = nn.Linear(8, 8)
        self.head = nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.enter(x))
        return self.head(torch.relu(self.again(torch.relu(self.again(x)))))


class TiedDecoder(nn.Module):
    """Uses a layer's weight outside that layer."""

    def __init__(self) -> None:
        super().__init__()
        self.encode = nn.Linear(6, 8)
        self.head = nn.Linear(6, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(torch.relu(self.encode(x)) @ self.encode.weight)


class Auxiliary(nn.Module):
    """Returns two outputs that read the same channels."""

    def __init__(self) -> None:
        super().__init__()
        self.enter = nn.Linear(6, 8)
        self.head = nn.Linear(8, 3)
        self.other = nn.Linear(8, 5)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        hidden = torch.relu(self.enter(x))
        return self.head(hidden), self.other(hidden)


class Detached(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.enter = nn.Linear(6, 8)
        self.middle = nn.Linear(8, 8)
        self.head = nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            x = torch.relu(self.enter(x))
        return self.head(torch.relu(self.middle(x)))


class Ungraded(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = mlp()

    @torch.no_grad()
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.inner(x)


class Bare(nn.Module):
    """A weight that belongs to no layer reads the channels."""

    def __init__(self) -> None:
        super().__init__()
        self.enter = nn.Linear(6, 8)
        self.weight = nn.Parameter(torch.randn(8, 5))
        self.head = nn.Linear(5, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(torch.relu(self.enter(x)) @ self.weight)


def resnext() -> nn.Module:
    """As a ResNeXt block: 1×1, grouped, 1×1, each with a batch norm."""
    return nn.Sequential(
        nn.Conv2d(3, 8, 1, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3, padding=1, groups=2, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 6, 1),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(6, 3),
    )


def grouped_chain() -> nn.Module:
    """One grouped convolution after the other, in groups of other sizes."""
    return nn.Sequential(
        nn.Conv2d(3, 12, 1),
        nn.Conv2d(12, 12, 3, padding=1, groups=2),
        nn.ReLU(),
        nn.Conv2d(12, 24, 3, padding=1, groups=3),
        nn.ReLU(),
        nn.Conv2d(24, 6, 1),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(6, 3),
    )


def grouped_transposed() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 8, 1),
        nn.ConvTranspose2d(8, 12, 2, stride=2, groups=2),
        nn.ReLU(),
        nn.Conv2d(12, 4, 1),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(4, 3),
    )


class Joined(nn.Module):
    """Two branches are concatenated, and ``after`` reads both at once."""

    def __init__(self, after: Callable[[], nn.Module], left: int = 4, right: int = 8) -> None:
        super().__init__()
        self.left = nn.Conv2d(3, left, 3, padding=1)
        self.right = nn.Conv2d(3, right, 3, padding=1)
        self.after = after()
        self.head = nn.Linear(12, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        joined = torch.cat([self.left(x), torch.relu(self.right(x))], 1)
        return self.head(torch.relu(self.after(joined)).mean((2, 3)))


def joined_grouped() -> nn.Module:
    return Joined(lambda: nn.Conv2d(12, 12, 3, padding=1, groups=3))


def joined_group_norm() -> nn.Module:
    return Joined(lambda: nn.GroupNorm(3, 12))


def group_normed(groups: int = 2) -> nn.Module:
    """As after batch norm, but for its statistics: those of a group of channels, one example at a time."""
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.GroupNorm(groups, 8),
        nn.ReLU(),
        nn.Conv2d(8, 6, 3, padding=1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(6, 3),
    )


def instance_normed(**options: bool) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.InstanceNorm2d(8, **options),
        nn.ReLU(),
        nn.Conv2d(8, 6, 3, padding=1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(6, 3),
    )


def normed_by(norm: Callable[[], nn.Module]) -> nn.Module:
    """A hidden layer of eight neurons passes ``norm``."""
    return nn.Sequential(nn.Linear(6, 8), norm(), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 3))


class LayerNorm2d(nn.LayerNorm):
    """As torchvision's and timm's: over the channels of an image."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class DoublingLayerNorm(nn.LayerNorm):
    """Its forward pass is its own."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 2 * super().forward(x)


class Scaled(nn.Module):
    """A ConvNeXt block: depthwise, norm, two 1×1 layers, a learned scale, and the input again."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 2, stride=2)
        self.depthwise = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.norm = nn.LayerNorm(8)
        self.up, self.down = nn.Linear(8, 16), nn.Linear(16, 8)
        self.scale = nn.Parameter(torch.randn(8, 1, 1))
        self.norm2d = LayerNorm2d(8)
        self.head = nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        y = self.norm(self.depthwise(x).permute(0, 2, 3, 1))
        y = self.down(nn.functional.gelu(self.up(y))).permute(0, 3, 1, 2)
        return self.head(self.norm2d(x + self.scale * y).mean((2, 3)))


class Positioned(nn.Module):
    """Reads ``(n, places, 6)``: a class token in front, positions added."""

    def __init__(self, places: int = 4) -> None:
        super().__init__()
        self.enter = nn.Linear(6, 8)
        self.token = nn.Parameter(torch.randn(1, 1, 8))
        self.positions = nn.Parameter(torch.randn(1, places + 1, 8))
        self.mix = nn.Linear(8, 8)
        self.head = nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.cat([self.token.expand(len(x), -1, -1), self.enter(x)], 1) + self.positions
        return self.head(torch.relu(x + self.mix(torch.relu(x)))[:, 0])


class Embedded(nn.Module):
    """What is read, and a category that is looked up, are added."""

    def __init__(self, max_norm: float | None = None) -> None:
        super().__init__()
        self.enter = nn.Linear(6, 8)
        self.category = nn.Embedding(4, 8, max_norm=max_norm)
        self.hidden = nn.Linear(8, 5)
        self.head = nn.Linear(5, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        category = (x[:, 0] > 0).long()
        return self.head(torch.relu(self.hidden(torch.relu(self.enter(x) + self.category(category)))))


def depthwise_multiplied() -> nn.Module:
    """Three filters a channel."""
    return nn.Sequential(
        nn.Conv2d(3, 4, 1),
        nn.Conv2d(4, 12, 3, padding=1, groups=4),
        nn.Conv2d(12, 6, 1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(6, 3),
    )


class PlusInput(nn.Module):
    """Adds what it was given: those channels cannot go."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding=1)
        self.next = nn.Conv2d(3, 6, 3, padding=1)
        self.head = nn.Linear(6, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(torch.relu(self.next(torch.relu(self.conv(x)) + x)).mean((2, 3)))


class Shuffled(nn.Module):
    """As ShuffleNet: channels change places."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1)
        self.next = nn.Conv2d(8, 6, 3, padding=1)
        self.head = nn.Linear(6, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.conv(x))
        x = x.view(len(x), 2, 4, *x.shape[2:]).transpose(1, 2).reshape(x.shape)
        return self.head(torch.relu(self.next(x)).mean((2, 3)))


class Gated(nn.Module):
    """Squeeze and excitation: channels scale channels."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.squeeze, self.excite = nn.Conv2d(8, 4, 1), nn.Conv2d(4, 8, 1)
        self.head = nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.norm(self.conv(x)))
        x = x * torch.sigmoid(self.excite(torch.relu(self.squeeze(x.mean((2, 3), keepdim=True)))))
        return self.head(x.mean((2, 3)))


class Features(nn.Module):
    """Returns its features beside its answer."""

    def __init__(self) -> None:
        super().__init__()
        self.enter, self.hidden, self.head = nn.Linear(6, 8), nn.Linear(8, 7), nn.Linear(7, 3)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        features = self.hidden(torch.relu(self.enter(x)))
        return self.head(features), features


class Spelled(nn.Module):
    """A network spelled out step by step, for random ones: each step reads earlier results and adds one.

    Args:
        steps: ``(kind, source, other source, channels, groups)``; sources count modulo what there is, and what does
            not fit falls back to a plain convolution.
    """

    KINDS = ("conv", "add", "cat", "depthwise", "gate", "norm", "swap", "half")

    def __init__(self, steps: list[tuple[str, int, int, int, int]]) -> None:
        super().__init__()
        self.layers, self.plan = nn.ModuleDict(), list[tuple[str, int, int]]()
        widths = [4]
        self.layers["stem"] = nn.Conv2d(3, 4, 3, padding=1)
        for position, (asked, one, other, width, groups) in enumerate(steps):
            a, b = one % len(widths), other % len(widths)
            kind = asked if asked != "add" or widths[a] == widths[b] else "align"
            made, wide = self._made(kind, widths[a], widths[b], width, groups)
            if made is not None:
                self.layers[str(position)] = made
            self.plan.append((kind, a, b))
            widths.append(wide)
        self.head = nn.Linear(widths[-1], 3)

    @staticmethod
    def _made(kind: str, a: int, b: int, width: int, groups: int) -> tuple[nn.Module | None, int]:
        if kind == "conv":
            split = groups if a % groups == 0 and width % groups == 0 else 1
            return nn.Conv2d(a, width, 3, padding=1, groups=split), width
        if kind == "align":
            return nn.Conv2d(b, a, 1), a
        if kind == "depthwise":
            return nn.Conv2d(a, a, 3, padding=1, groups=a), a
        if kind == "gate":
            return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(a, 2, 1), nn.ReLU(), nn.Conv2d(2, a, 1)), a
        if kind == "norm":
            return (nn.GroupNorm(groups, a) if a % groups == 0 and groups > 1 else nn.BatchNorm2d(a)), a
        return None, {"cat": a + b, "half": max(a // 2, 1)}.get(kind, a)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        seen = [self.layers["stem"](x)]
        for position, (kind, a, b) in enumerate(self.plan):
            layer = dict(self.layers).get(str(position))
            seen.append(self._step(kind, layer, seen[a], seen[b]))
        return self.head(seen[-1].mean((2, 3)))

    @staticmethod
    def _step(kind: str, layer: nn.Module | None, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        if kind == "add":
            return a + b
        if kind == "cat":
            return torch.cat([a, b], 1)
        if kind == "swap":
            return a.flip(1)
        if kind == "half":
            return a[:, : max(a.shape[1] // 2, 1)]
        assert layer is not None
        if kind == "align":
            return torch.relu(a + layer(b))
        if kind == "gate":
            return a * torch.sigmoid(layer(a))
        return torch.relu(layer(a))
