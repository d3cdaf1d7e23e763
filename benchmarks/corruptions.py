"""How long it takes to corrupt images at five severities, beside imagecorruptions and kornia, and how much memory.

    python benchmarks/corruptions.py [--quick] [--images 10000] [--slow 200] [--rounds 3] [--threads 1] [--batch 256]

Colour images of 32 × 32 pixels, the 15 families of ImageNet-C at severities 1 to 5, with the constants of ImageNet-C
for everyone (``constants = "imagenet"``, as imagecorruptions has them at any size). The sides take turns, family by
family and round by round, in one process; medians. imagecorruptions does one image at a time: it gets the first
``--slow`` images, and its time is scaled to all. Where a function of it raises, the cell says so. Times are of the
processor, which a busy machine changes less than those of the clock; of one thread they are the same on an idle one.

kornia is the maintained peer: batches of tensors like ours, on the same torch. It has no zoom blur, glass blur, shot
noise, pixelation, fog or frost, and its snow is another formula; where it has the formula's parts (HSV, a filter with a
given disk), those are put together. AlbumentationsX does one image at a time, mostly by other formulas.

Ours is timed on float32 in [0, 1], as kornia is, and on uint8, as imagecorruptions is; draws are made anew in every
round, once for the five severities. kornia draws at each.

Needs imagecorruptions 1.1.2 (which needs setuptools < 81) and kornia. ``--memory`` needs Linux.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import importlib
import importlib.metadata
import math
import os
import platform
import statistics
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pruneproof.domain import Box
from pruneproof.shift.draws import Draws
from pruneproof.shift.ground import Ground

FAMILIES = (
    *("gaussian_noise", "shot_noise", "impulse_noise", "defocus_blur", "glass_blur", "motion_blur", "zoom_blur"),
    *("snow", "frost", "fog", "brightness", "contrast", "elastic_transform", "pixelate", "jpeg_compression"),
)
SEVERITIES = (1, 2, 3, 4, 5)
PACKAGES = ("torch", "numpy", "pillow", "imagecorruptions", "kornia", "scikit-image", "opencv-python")
SIDE = 32
Seconds = float | None
Side = Callable[[str, torch.Tensor, int], Seconds]


def say(line: str = "") -> None:
    """A line of the result, at once."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def photos(number: int) -> torch.Tensor:
    """``(number, 3, 32, 32)`` uint8: smooth, with some grain."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(number, 3, 8, 8, generator=generator)
    smooth = torch.nn.functional.interpolate(coarse, size=(SIDE, SIDE), mode="bilinear")
    grain = torch.randn(number, 3, SIDE, SIDE, generator=generator) * 0.02
    return ((smooth + grain).clamp_(0, 1) * 255).round_().to(torch.uint8)


def ours(family: str, images: torch.Tensor, batch: int, severities: tuple[int, ...] = SEVERITIES) -> Seconds:
    """Batch by batch, each at all severities with the same draws; nothing is kept, as in an audit."""
    corruption = importlib.import_module(f"pruneproof.corruptions.{family}").CORRUPTION
    options = corruption.options(constants="imagenet")
    high = 1.0 if images.is_floating_point() else 255
    ground = Ground("image", tuple(images.shape[1:]), images.dtype, Box(0, high), images[:1])
    start = time.process_time()
    for first in range(0, len(images), batch):
        clean = images[first : first + batch]
        draws = Draws(0, family, range(first, first + len(clean)))
        for severity in severities:
            corruption.apply(clean, ground, severity, draws.rewound(), options)
    return time.process_time() - start


def imagecorruptions(family: str, images: torch.Tensor, batch: int) -> Seconds:
    import imagecorruptions

    arrays = [np.ascontiguousarray(image.permute(1, 2, 0).numpy()) for image in images]
    try:
        imagecorruptions.corrupt(arrays[0], severity=1, corruption_name=family)
    except (TypeError, AttributeError):
        return None
    start = time.process_time()
    for array in arrays:
        for severity in SEVERITIES:
            imagecorruptions.corrupt(array, severity=severity, corruption_name=family)
    return time.process_time() - start


def kornia(family: str, images: torch.Tensor, batch: int) -> Seconds:
    if family not in KORNIA:
        return None
    steps = [KORNIA[family](level) for level in range(5)]
    steps[0](images[:2])
    start = time.process_time()
    for first in range(0, len(images), batch):
        for step in steps:
            step(images[first : first + batch])
    return time.process_time() - start


def _gaussian_noise(level: int) -> Any:
    from kornia import augmentation

    return augmentation.RandomGaussianNoise(std=(0.08, 0.12, 0.18, 0.26, 0.38)[level], p=1.0)


def _impulse_noise(level: int) -> Any:
    from kornia import augmentation

    amount = (0.03, 0.06, 0.09, 0.17, 0.27)[level]
    return augmentation.RandomSaltAndPepperNoise(amount=(amount, amount + 1e-6), salt_vs_pepper=(0.4999, 0.5), p=1.0)


def _defocus_blur(level: int) -> Any:
    from kornia import filters

    radius = (3, 4, 6, 8, 10)[level]
    across = torch.arange(-radius, radius + 1)
    disk = (across[:, None] ** 2 + across**2 <= radius**2).float()
    return lambda images: filters.filter2d(images, (disk / disk.sum())[None])


def _motion_blur(level: int) -> Any:
    from kornia import augmentation

    return augmentation.RandomMotionBlur(2 * (10, 15, 15, 15, 20)[level] + 1, 45.0, 1.0, p=1.0)


def _brightness(level: int) -> Any:
    from kornia import color

    def raised(images: torch.Tensor) -> torch.Tensor:
        hue, saturation, value = color.rgb_to_hsv(images).unbind(1)
        value = (value + (0.1, 0.2, 0.3, 0.4, 0.5)[level]).clamp(max=1)
        return color.hsv_to_rgb(torch.stack([hue, saturation, value], 1))

    return raised


def _contrast(level: int) -> Any:
    from kornia import enhance

    return lambda images: enhance.adjust_contrast_with_mean_subtraction(images, (0.4, 0.3, 0.2, 0.1, 0.05)[level])


def _elastic_transform(level: int) -> Any:
    from kornia import augmentation

    sigma, alpha = ((170.8, 488.0), (19.52, 488.0), (2.44, 12.2), (2.44, 17.08), (2.44, 29.28))[level]
    size = 2 * min(math.ceil(3 * sigma), SIDE - 1) + 1
    share = 2 * alpha / SIDE
    return augmentation.RandomElasticTransform((size, size), (sigma, sigma), (share, share), p=1.0)


def _jpeg_compression(level: int) -> Any:
    from kornia import augmentation

    quality = float((25, 18, 15, 10, 7)[level])
    return augmentation.RandomJPEG((quality, quality), p=1.0)


KORNIA: dict[str, Callable[[int], Any]] = {
    "gaussian_noise": _gaussian_noise,
    "impulse_noise": _impulse_noise,
    "defocus_blur": _defocus_blur,
    "motion_blur": _motion_blur,
    "brightness": _brightness,
    "contrast": _contrast,
    "elastic_transform": _elastic_transform,
    "jpeg_compression": _jpeg_compression,
}


def compared(given: argparse.Namespace) -> None:
    """Prints microseconds an image and severity, of each side, and the totals."""
    byte = photos(given.images)
    real = byte.float() / 255
    sides: dict[str, tuple[Side, torch.Tensor]] = {
        "ours, float32": (ours, real),
        "ours, uint8": (ours, byte),
        "kornia": (kornia, real),
        "imagecorruptions": (imagecorruptions, byte[: given.slow]),
    }
    say("| family | " + " | ".join(sides) + " | kornia / ours | imagecorruptions / ours |")
    say("|---" * (len(sides) + 3) + "|")
    medians: dict[str, dict[str, float]] = {name: {} for name in sides}
    for family in FAMILIES:
        taken: dict[str, list[float]] = {name: [] for name in sides}
        for turn in range(given.rounds + 1):  # the first one, of few images, is not counted
            for name, (side, images) in sides.items():
                some = images if turn else images[:10]
                gc.collect()
                seconds = side(family, some, given.batch)
                if seconds is not None and turn:
                    taken[name].append(seconds / len(some) / len(SEVERITIES) * 1e6)
        for name, times in taken.items():
            if times:
                medians[name][family] = statistics.median(times)
        say(f"| {family} | {' | '.join(row(medians, family))} |")
    for peer, mine in (("kornia", "ours, float32"), ("imagecorruptions", "ours, uint8")):
        both = medians[peer].keys()
        mine_total, total = (sum(medians[name][family] for family in both) for name in (mine, peer))
        scale = given.images * len(SEVERITIES) / 1e6
        say(
            f"\n{len(both)} families, {given.images:,} images, 5 severities: {mine}: {mine_total * scale:.0f} s, "
            f"{peer}: {total * scale:.0f} s, {total / mine_total:.1f} times as long"
        )
    for mine in ("ours, float32", "ours, uint8"):
        say(f"\nall 15: {mine}: {sum(medians[mine].values()) * given.images * len(SEVERITIES) / 1e6:.0f} s")


def row(medians: dict[str, dict[str, float]], family: str) -> list[str]:
    cells = []
    for name, found in medians.items():
        missing = "raises" if name == "imagecorruptions" else "has none"
        cells.append(f"{found[family]:.1f} µs" if family in found else missing)
    for peer, mine in (("kornia", "ours, float32"), ("imagecorruptions", "ours, uint8")):
        found = medians[peer]
        cells.append(f"{found[family] / medians[mine][family]:.1f}" if family in found else "")
    return cells


def memory(number: int, severities: int, batch: int) -> float:
    """Rise of the resident set in MiB while all 15 families corrupt ``number`` images batch by batch."""
    images = photos(number)
    for family in FAMILIES:
        ours(family, images[:batch], batch, SEVERITIES)
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    before, highest, over = resident(), 0.0, threading.Event()

    def watch() -> None:
        nonlocal highest
        while not over.wait(0.002):
            highest = max(highest, resident())

    watcher = threading.Thread(target=watch)
    watcher.start()
    for family in FAMILIES:
        ours(family, images, batch, SEVERITIES[:severities])
    over.set()
    watcher.join()
    return highest - before


def resident() -> float:
    """MiB."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "absent"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a smoke run: 100 images, one round")
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--slow", type=int, default=200, help="images for imagecorruptions, which are scaled to all")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--memory", nargs=2, type=int, metavar=("IMAGES", "SEVERITIES"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.quick:
        given.images, given.slow, given.rounds = 100, 5, 1
    torch.set_num_threads(given.threads)
    warnings.simplefilter("ignore")
    if given.memory:
        say(f"{memory(*given.memory, given.batch):.0f}")
        return
    import cv2

    cv2.setNumThreads(given.threads)
    versions = ", ".join(f"{name} {version(name)}" for name in PACKAGES)
    say(f"{versions}; Python {platform.python_version()}; {given.threads} thread(s); {given.rounds} rounds")
    say(f"\nµs an image and severity; batches of {given.batch}; imagecorruptions: {given.slow} images\n")
    compared(given)
    say("\n| images | severities | memory above the images |\n|---|---|---|")
    for number, severities in ((100, 1),) if given.quick else ((1000, 1), (1000, 5), (5000, 1), (5000, 5)):
        asked = [sys.executable, __file__, "--memory", str(number), str(severities), "--batch", str(given.batch)]
        rise = subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip()
        say(f"| {number:,} | {severities} | {rise} MiB |")


if __name__ == "__main__":
    main()
