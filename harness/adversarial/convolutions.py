"""Gradients of first layers, faster on CPUs: where a library's own convolution backwards is slow, a matrix product."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch.nn import functional
from torch.overrides import TorchFunctionMode


class FastFirstLayers(TorchFunctionMode):
    """A context in which gradients flow back through some convolutions by another formula for the same numbers.

    The gradient of a convolution in its input is the adjoint of cutting the input into patches, applied to a matrix
    product. oneDNN is slow at it for one input channel, and for patches that do not overlap (the embedding of a vision
    transformer): 1.5 to 5 times, measured with batches of 64 on one and two threads. Results differ by rounding alone.
    Nothing of the model is changed; convolutions whose weights want gradients are left alone.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if func is torch.conv2d and not kwargs and len(args) == 7 and _faster(*args):
            image, weight, bias, stride, padding = args[:5]
            return _Convolution.apply(image, weight, bias, stride, padding)
        return func(*args, **(kwargs or {}))


def _faster(
    image: Any, weight: torch.Tensor, bias: torch.Tensor | None, stride: Any, padding: Any, dilation: Any, groups: int
) -> bool:
    if isinstance(padding, str) or groups != 1 or image.ndim != 4 or not torch.is_grad_enabled():
        return False
    if image.device.type != "cpu" or image.dtype not in (torch.float32, torch.float64) or not image.requires_grad:
        return False
    if weight.requires_grad or (bias is not None and bias.requires_grad) or tuple(dilation) != (1, 1):
        return False
    apart = tuple(weight.shape[2:]) == tuple(stride) and tuple(padding) == (0, 0)
    return weight.shape[1] == 1 or apart


class _Convolution(torch.autograd.Function):
    """Forwards the convolution itself."""

    @staticmethod
    def forward(
        ctx: Any,
        image: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        stride: tuple[int, int],
        padding: tuple[int, int],
    ) -> torch.Tensor:
        ctx.save_for_backward(weight)
        ctx.size, ctx.stride, ctx.padding = image.shape[2:], stride, padding
        return torch.conv2d(image, weight, bias, stride, padding)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        (weight,) = ctx.saved_tensors
        patches = weight.flatten(1).T @ gradients[0].flatten(2)
        found = functional.fold(patches, ctx.size, weight.shape[2:], padding=ctx.padding, stride=ctx.stride)
        return found, None, None, None, None
