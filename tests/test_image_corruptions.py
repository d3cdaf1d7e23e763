"""The corruptions of images against the published constants, other libraries, and formulas written out in loops."""

from __future__ import annotations

import colorsys
import importlib
import io
import itertools
import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy import ndimage, stats

from pruneproof.corruptions import _image_linear, _image_poisson
from pruneproof.corruptions._image_jpeg import compressed
from pruneproof.corruptions._image_range import close, opened
from pruneproof.corruptions.frost import BRIGHTEST, DIMMEST, pane
from pruneproof.corruptions.glass_blur import sources
from pruneproof.domain import Box
from pruneproof.shift.draws import Draws
from pruneproof.shift.ground import Ground

NOISE = ("gaussian_noise", "shot_noise", "impulse_noise")
BLUR = ("defocus_blur", "glass_blur", "motion_blur", "zoom_blur")
WEATHER = ("snow", "frost", "fog", "brightness")
DIGITAL = ("contrast", "elastic_transform", "pixelate", "jpeg_compression")
EXTRA = ("speckle_noise", "gaussian_blur", "spatter", "saturate")
EVERY = (*NOISE, *BLUR, *WEATHER, *DIGITAL, *EXTRA, "uniform_noise")
COLOURED = ("snow", "frost", "jpeg_compression", "spatter", "saturate")
"""Those that need a grey or RGB image, the last one RGB."""
BOXES = (
    (torch.uint8, 0, 255),
    (torch.float32, 0, 16),
    (torch.float64, -1, 1),
    (torch.float16, 0, 1),
    (torch.float32, torch.tensor([-2.1, -2.0, -1.8]).reshape(3, 1, 1), torch.tensor([2.2, 2.4, 2.6]).reshape(3, 1, 1)),
)


def member(name: str) -> Any:
    return importlib.import_module(f"pruneproof.corruptions.{name}").CORRUPTION


def ground_of(clean: torch.Tensor, low: Any = 0, high: Any = 1) -> Ground:
    return Ground("image", tuple(clean.shape[1:]), clean.dtype, Box(low, high), clean)


def photos(number: int, channels: int, height: int, width: int, seed: int = 0) -> torch.Tensor:
    """Smooth images with sharp edges in them, multiples of 1/255."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(number, channels, max(height // 4, 2), max(width // 4, 2), generator=generator)
    smooth = torch.nn.functional.interpolate(coarse, size=(height, width), mode="bilinear")
    smooth[:, :, height // 3 : height // 2, width // 4 :] *= 0.3
    return (smooth * 255).round() / 255


def corrupt(
    name: str, clean: torch.Tensor, severity: float, box: tuple[Any, Any] = (0, 1), positions: Any = None, **own: Any
) -> torch.Tensor:
    corruption = member(name)
    options, draws = corruption.options(**own), Draws(1, name, range(len(clean)) if positions is None else positions)
    found: torch.Tensor = corruption.apply(clean, ground_of(clean, *box), severity, draws, options)
    return found


def drawn(name: str, clean: torch.Tensor, severity: float, **own: Any) -> tuple[dict[str, float], list[np.ndarray]]:
    """The values of the knobs, and what ``corrupt`` draws for the images, float64."""
    corruption, ground = member(name), ground_of(clean)
    at = corruption.values(ground, severity, corruption.options(**own))
    numbers = corruption.drawn(tuple(clean.shape[1:]), at, Draws(1, name, range(len(clean))))
    return dict(at), [part.double().numpy() for part in numbers]


PUBLISHED: dict[tuple[str, str], tuple[tuple[float, ...], tuple[float, ...]]] = {
    ("gaussian_noise", "sigma"): ((0.04, 0.06, 0.08, 0.09, 0.10), (0.08, 0.12, 0.18, 0.26, 0.38)),
    ("shot_noise", "photons"): ((500, 250, 100, 75, 50), (60, 25, 12, 5, 3)),
    ("impulse_noise", "amount"): ((0.01, 0.02, 0.03, 0.05, 0.07), (0.03, 0.06, 0.09, 0.17, 0.27)),
    ("defocus_blur", "radius"): ((0.3, 0.4, 0.5, 1, 1.5), (3, 4, 6, 8, 10)),
    ("glass_blur", "sigma"): ((0.05, 0.25, 0.4, 0.25, 0.4), (0.7, 0.9, 1, 1.1, 1.5)),
    ("motion_blur", "sigma"): ((1, 1.5, 2, 2, 2.5), (3, 5, 8, 12, 15)),
    ("snow", "kept"): ((0.95, 0.9, 0.9, 0.85, 0.8), (0.8, 0.7, 0.7, 0.65, 0.55)),
    ("frost", "ice"): ((0.2, 0.3, 0.4, 0.4, 0.45), (0.4, 0.6, 0.7, 0.7, 0.75)),
    ("fog", "thickness"): ((0.2, 0.5, 0.75, 1, 1.5), (1.5, 2, 2.5, 2.5, 3)),
    ("brightness", "amount"): ((0.05, 0.1, 0.15, 0.2, 0.3), (0.1, 0.2, 0.3, 0.4, 0.5)),
    ("contrast", "factor"): ((0.75, 0.5, 0.4, 0.3, 0.15), (0.4, 0.3, 0.2, 0.1, 0.05)),
    ("elastic_transform", "alpha"): ((0, 1.6, 2.56, 3.2, 3.2), (488, 488, 12.2, 17.08, 29.28)),
    ("pixelate", "size"): ((0.95, 0.9, 0.85, 0.75, 0.65), (0.6, 0.5, 0.4, 0.3, 0.25)),
    ("jpeg_compression", "quality"): ((80, 65, 58, 50, 40), (25, 18, 15, 10, 7)),
    ("speckle_noise", "sigma"): ((0.06, 0.1, 0.12, 0.16, 0.2), (0.15, 0.2, 0.35, 0.45, 0.6)),
    ("gaussian_blur", "sigma"): ((0.4, 0.6, 0.7, 0.8, 1), (1, 2, 3, 4, 6)),
}


@pytest.mark.parametrize(("name", "knob"), PUBLISHED)
def test_images_of_32_and_224_pixels_get_the_published_constants(name: str, knob: str) -> None:
    corruption = member(name)
    for side, levels in zip((32, 224), PUBLISHED[name, knob], strict=True):
        ground = ground_of(torch.zeros(1, 3, side, side))
        found = [corruption.parameters(ground, severity, corruption.options())[knob] for severity in (1, 2, 3, 4, 5)]
        assert found == pytest.approx(levels, rel=1e-5)


@given(st.integers(8, 600), st.floats(0, 5))
def test_between_the_published_sizes_and_severities_parameters_are_between_theirs(side: int, severity: float) -> None:
    sigma = member("gaussian_noise").knobs[0]
    bounds = [sigma.at(level, size) for level in (math.floor(severity), math.ceil(severity)) for size in (32, 224)]
    assert min(bounds) - 1e-12 <= sigma.at(severity, side) <= max(bounds) + 1e-12


def test_beyond_the_published_sizes_blurs_grow_with_the_image_and_do_not_vanish_in_small_ones() -> None:
    blur = member("gaussian_blur").knobs[0]
    assert blur.at(3, 448) == pytest.approx(2 * blur.at(3, 224))
    assert blur.at(3, 8) == blur.at(3, 32)
    shift = member("elastic_transform").knobs[2]
    assert shift.at(1, 8) == pytest.approx(shift.at(1, 32) / 4)


def hsv(image: np.ndarray, change: Any) -> np.ndarray:
    """Every pixel through the standard library's HSV."""
    changed = [colorsys.hsv_to_rgb(*change(*colorsys.rgb_to_hsv(*pixel))) for pixel in image.reshape(3, -1).T]
    return np.array(changed).T.reshape(image.shape)


def disk(radius: float, smoothing: float) -> np.ndarray:
    """A disk smoothed over 3 × 3 or 5 × 5 pixels, on an array that holds all of it."""
    reach, around = math.floor(radius) + 2, 1 if radius <= 8 else 2
    across = np.arange(-reach, reach + 1)
    filled = (across[:, None] ** 2 + across**2 <= radius**2).astype(float)
    weights = np.exp(-(np.arange(-around, around + 1) ** 2) / (2 * smoothing**2))
    for axis in (0, 1):
        filled = ndimage.correlate1d(filled, weights / weights.sum(), axis=axis, mode="constant")
    return filled / filled.sum()


def clipped_zoom(image: np.ndarray, factor: float) -> np.ndarray:
    """The middle enlarged, its ends cut off: by scipy, square images."""
    side = image.shape[0]
    crop = math.ceil(side / factor)
    top = (side - crop) // 2
    found = ndimage.zoom(image[top : top + crop, top : top + crop], factor, order=1)
    cut = (len(found) - side) // 2
    return found[cut : cut + side, cut : cut + side]


def zoom_blurred(image: np.ndarray, at: dict[str, float]) -> np.ndarray:
    factors = np.arange(1, at["largest"] + at["step"] / 2, at["step"])
    return (image + sum(clipped_zoom(image, factor) for factor in factors)) / (len(factors) + 1)


CHANNELWISE: dict[str, Any] = {
    "contrast": lambda image, at: image.mean() + at["factor"] * (image - image.mean()),
    "gaussian_blur": lambda image, at: ndimage.gaussian_filter(image, at["sigma"], mode="nearest", truncate=4),
    "defocus_blur": lambda image, at: ndimage.correlate(image, disk(at["radius"], at["smoothing"]), mode="mirror"),
    "zoom_blur": zoom_blurred,
}
COLOURWISE: dict[str, Any] = {
    "brightness": lambda at: lambda h, s, v: (h, s, min(v + at["amount"], 1)),
    "saturate": lambda at: lambda h, s, v: (h, min(max(s * at["factor"] + at["offset"], 0), 1), v),
}


@pytest.mark.parametrize("constants", ["cifar", "imagenet"])
@pytest.mark.parametrize("name", CHANNELWISE)
def test_filters_agree_with_scipy(name: str, constants: str) -> None:
    clean = photos(1, 3, 40, 40)
    for severity in (1, 2, 3.5, 5):
        at, _ = drawn(name, clean, severity, constants=constants)
        expected = [np.clip(CHANNELWISE[name](channel, at), 0, 1) for channel in clean[0].double().numpy()]
        found = corrupt(name, clean, severity, constants=constants)[0].numpy()
        np.testing.assert_allclose(found, expected, atol=3e-6)


def test_a_blur_at_the_size_of_imagenet_agrees_with_scipy() -> None:
    clean = photos(1, 1, 224, 224)
    expected = ndimage.gaussian_filter(clean[0, 0].double().numpy(), 6, mode="nearest", truncate=4)
    np.testing.assert_allclose(corrupt("gaussian_blur", clean, 5)[0, 0].numpy(), expected, atol=3e-6)


@pytest.mark.parametrize("name", COLOURWISE)
def test_colours_agree_with_the_standard_librarys_hsv(name: str) -> None:
    clean = photos(1, 3, 8, 8)
    clean[0, :, 0, :3] = torch.tensor([0.0, 1.0, 0.5])  # black, white, grey
    for severity in (1, 2.5, 4, 5):
        at, _ = drawn(name, clean, severity, constants="imagenet")
        expected = hsv(clean[0].double().numpy(), COLOURWISE[name](at))
        found = corrupt(name, clean, severity, constants="imagenet")[0].numpy()
        np.testing.assert_allclose(found, expected, atol=2e-6)


@given(
    st.sampled_from((1, 3)),
    st.integers(8, 70),
    st.integers(8, 70),
    st.integers(1, 100),
    st.integers(0, 99),
    st.booleans(),
)
@settings(max_examples=60, deadline=None)
def test_jpegs_are_pillows_to_the_bit(
    channels: int, height: int, width: int, quality: int, seed: int, noisy: bool
) -> None:
    clean = (photos(3, channels, height, width, seed) * 255).to(torch.uint8)
    if noisy:
        clean = torch.randint(0, 256, clean.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)
    for image, found in zip(clean, compressed(clean, quality), strict=True):
        pixels = image.permute(1, 2, 0).squeeze(2) if channels == 1 else image.permute(1, 2, 0)
        stream = io.BytesIO()
        Image.fromarray(pixels.contiguous().numpy()).save(stream, "JPEG", quality=quality)
        expected = np.asarray(Image.open(stream)).reshape(height, width, channels)
        np.testing.assert_array_equal(found.permute(1, 2, 0).numpy(), expected)


def test_severities_of_jpeg_are_its_qualities() -> None:
    clean = (photos(2, 3, 32, 32) * 255).to(torch.uint8)
    for severity, quality in ((1, 80), (2.5, 62), (5, 40)):
        assert torch.equal(corrupt("jpeg_compression", clean, severity, (0, 255)), compressed(clean, quality))


@pytest.mark.parametrize("constants", ["cifar", "imagenet"])
def test_pixelation_is_pillows_to_one_level(constants: str) -> None:
    clean = (photos(1, 3, 32, 48) * 255).to(torch.uint8)
    image = Image.fromarray(clean[0].permute(1, 2, 0).contiguous().numpy())
    for severity in (1, 3, 5):
        share = drawn("pixelate", clean, severity, constants=constants)[0]["size"]
        small = image.resize((int(48 * share), int(32 * share)), Image.Resampling.BOX)
        expected = np.asarray(small.resize((48, 32), Image.Resampling.BOX)).astype(int)
        found = corrupt("pixelate", clean, severity, (0, 255), constants=constants)[0].permute(1, 2, 0).numpy()
        assert np.abs(found - expected).max() <= 1


def diamond_square(uniform: np.ndarray, decay: float) -> np.ndarray:
    """The height map pixel by pixel, on a torus."""
    side = math.isqrt(len(uniform))
    heights, drawn_, step, jitter = np.zeros((side, side)), iter(uniform), side, 100.0
    while step >= 2:
        half, height = step // 2, heights

        def settle(row: int, column: int, steps: list[tuple[int, int]], jitter: float = jitter) -> None:
            near = sum(heights[(row + down) % side, (column + right) % side] for down, right in steps)
            heights[row, column] = near / 4 + jitter * (2 * jitter * next(drawn_) - jitter)

        corners = [(down, right) for down in (-half, half) for right in (-half, half)]
        cross = [(-half, 0), (half, 0), (0, -half), (0, half)]
        for first, last, near in ((half, half, corners), (0, half, cross), (half, 0, cross)):
            for row in range(first, side, step):
                for column in range(last, side, step):
                    settle(row, column, near)
        step, jitter = half, jitter / decay
    heights = height - height.min()
    return heights / heights.max()


def test_fog_is_a_plasma_by_the_diamond_square_algorithm() -> None:
    clean = photos(1, 3, 12, 16)
    at, (uniform,) = drawn("fog", clean, 4)
    image, haze = clean[0].double().numpy(), diamond_square(uniform[0], at["decay"])[:12]
    expected = (image + at["thickness"] * haze) * image.max() / (image.max() + at["thickness"])
    np.testing.assert_allclose(corrupt("fog", clean, 4)[0].numpy(), expected, atol=1e-5)


def smeared(image: np.ndarray, degrees: float, radius: float, sigma: float) -> np.ndarray:
    """A streak, pixel by pixel."""
    weights = [math.exp(-(place**2) / (2 * sigma**2)) for place in range(2 * round(radius) + 1)]
    rows, columns = np.indices(image.shape)
    found = np.zeros(image.shape)
    for place, weight in enumerate(weights):
        down = math.ceil(place * math.sin(math.radians(degrees)) - 0.5)
        right = math.ceil(place * math.cos(math.radians(degrees)) - 0.5)
        source = np.clip(rows + down, 0, len(image) - 1), np.clip(columns + right, 0, image.shape[1] - 1)
        found += weight * image[source]
    return found / sum(weights)


@pytest.mark.parametrize("constants", ["cifar", "imagenet"])
def test_motion_blur_is_a_streak_along_each_images_own_angle(constants: str) -> None:
    clean = photos(6, 1, 20, 24)
    for severity in (1, 5):
        at, (turns,) = drawn("motion_blur", clean, severity, constants=constants)
        found = corrupt("motion_blur", clean, severity, constants=constants)
        for image, turn, blurred in zip(clean, turns[:, 0], found, strict=True):
            expected = smeared(image[0].double().numpy(), turn * 90 - 45, at["radius"], at["sigma"])
            np.testing.assert_allclose(blurred[0].numpy(), expected, atol=2e-4)


@pytest.mark.parametrize("share", [1.0, 0.4])
def test_glass_scatters_pixels_one_after_the_other(share: float) -> None:
    reach, side = 2, 14
    numbers = torch.rand(1, 3, side, side, generator=torch.Generator().manual_seed(5))
    pixels = np.arange(side * side).reshape(side, side)
    for row in range(side - reach, reach, -1):
        for column in range(side - reach, reach, -1):
            right, down, part = numbers[0, :, row, column].tolist()
            if part < share:
                right, down = (math.floor(number * 2 * reach) - reach for number in (right, down))
                pixels[row, column] = pixels[row + down, column + right]
    np.testing.assert_array_equal(sources(numbers, reach, share)[0].numpy(), pixels)


def test_glass_blur_blurs_scatters_and_blurs() -> None:
    clean = photos(1, 1, 24, 24)
    at, scatters = drawn("glass_blur", clean, 3, constants="imagenet")
    assert at == {"sigma": 1, "reach": 2, "iterations": 3}
    expected = ndimage.gaussian_filter(clean[0, 0].double().numpy(), 1, mode="nearest", truncate=4)
    for numbers in scatters:
        expected = expected.ravel()[sources(torch.from_numpy(numbers).float(), 2)[0].numpy()]
    expected = ndimage.gaussian_filter(expected, 1, mode="nearest", truncate=4)
    np.testing.assert_allclose(corrupt("glass_blur", clean, 3, constants="imagenet")[0, 0].numpy(), expected, atol=3e-6)


@pytest.mark.parametrize("channels", [1, 3])
def test_snow_whitens_the_image_and_lays_flakes_on_it_upright_and_upside_down(channels: int) -> None:
    clean = photos(2, channels, 36, 36)
    at, (noise, turns) = drawn("snow", clean, 3)
    for image, numbers, turn, found in zip(
        clean.double().numpy(), noise, turns, corrupt("snow", clean, 3), strict=True
    ):
        layer = clipped_zoom(numbers[0] * at["spread"] + at["mean"], at["zoom"])
        layer = np.clip(np.where(layer < at["threshold"], 0, layer), 0, 1)
        layer = np.round(smeared(layer, turn[0] * 90 - 135, at["radius"], at["sigma"]) * 255) / 255
        grey = image[:1] if channels == 1 else np.tensordot([0.299, 0.587, 0.114], image, 1)[None]
        white = at["kept"] * image + (1 - at["kept"]) * np.maximum(image, grey * 1.5 + 0.5)
        expected = np.clip(white + layer + layer[::-1, ::-1], 0, 1)
        off = np.abs(found.numpy() - expected)
        assert off.max() < 2.01 / 255  # a flake's level may round the other way
        assert off.mean() < 0.05 / 255


def test_elastic_transform_is_scipys_affine_map_and_then_its_map_coordinates() -> None:
    clean = photos(2, 3, 33, 40)
    at, (corners, noise) = drawn("elastic_transform", clean, 4)
    middle, reach = np.array([33 // 2, 40 // 2]), 33 // 3
    start = middle + np.array([[reach, reach], [reach, -reach], [-reach, -reach]])
    for image, moves, fields, found in zip(
        clean.double().numpy(), corners, noise, corrupt("elastic_transform", clean, 4), strict=True
    ):
        end = np.column_stack([start + (2 * moves - 1) * at["affine"], np.ones(3)])
        back = np.linalg.solve(end, start.astype(float)).T  # from where a point is to where it was, (column, row)
        matrix, offset = back[::-1, 1::-1], back[::-1, 2]
        across, down = (
            ndimage.gaussian_filter(2 * field - 1, at["sigma"], mode="reflect", truncate=3) * at["alpha"]
            for field in fields
        )
        rows, columns = np.indices((33, 40))
        for channel, result in zip(image, found.numpy(), strict=True):
            moved = ndimage.affine_transform(channel, matrix, offset, order=1, mode="mirror")
            expected = ndimage.map_coordinates(moved, [rows + down, columns + across], order=1, mode="reflect")
            np.testing.assert_allclose(result, expected, atol=2e-4)


def test_frost_lays_its_share_of_a_pane_on_its_share_of_the_image() -> None:
    clean = torch.full((3, 3, 16, 16), 0.1)
    at, numbers = drawn("frost", clean, 5)
    assert at == {"kept": 0.75, "ice": 0.45}
    panes = pane(*(torch.from_numpy(part).float() for part in numbers))[:, None]
    colours = (panes * torch.tensor([0.90, 1.0, 1.07]).reshape(3, 1, 1)).clamp(0, 1)
    torch.testing.assert_close(corrupt("frost", clean, 5), 0.075 + 0.45 * colours, atol=1e-6, rtol=0)
    pictures = pane(*(torch.rand(500, size, generator=torch.Generator().manual_seed(size)) for size in (1024, 1024, 1)))
    assert pictures.mean().item() == pytest.approx((DIMMEST + BRIGHTEST) / 2, abs=0.05)
    assert 0.06 < pictures.std(dim=(1, 2)).mean().item() < 0.19  # the photographs' spreads


def test_mud_covers_what_is_wet() -> None:
    clean = photos(2, 3, 32, 32)
    at, (noise,) = drawn("spatter", clean, 5)
    for image, numbers, found in zip(clean.double().numpy(), noise, corrupt("spatter", clean, 5), strict=True):
        liquid = ndimage.gaussian_filter(
            numbers[0] * at["spread"] + at["mean"], at["sigma"], mode="nearest", truncate=4
        )
        wet = (liquid > at["threshold"]).astype(float)
        cover = ndimage.gaussian_filter(wet, at["softness"], mode="nearest", truncate=4)
        cover[cover < 0.8] = 0
        assert 0 < (cover > 0).mean() < 0.5
        mud = np.array([63, 42, 20]).reshape(3, 1, 1) / 255
        np.testing.assert_allclose(found.numpy(), image * (1 - cover) + mud * cover, atol=1e-5)


def test_water_only_brightens_and_only_where_it_is_wet() -> None:
    clean = photos(20, 3, 32, 32) * 0.4
    at, (noise,) = drawn("spatter", clean, 3)
    more = (corrupt("spatter", clean, 3) - clean).numpy()
    for numbers, added in zip(noise, more, strict=True):
        liquid = ndimage.gaussian_filter(
            numbers[0] * at["spread"] + at["mean"], at["sigma"], mode="nearest", truncate=4
        )
        assert added.min() >= -1e-6
        assert np.abs(added[:, liquid < at["threshold"] - 1e-6]).max() < 1e-6
        assert added[1].max() == pytest.approx(at["shine"] * 238 / 255, abs=1e-5)  # of the brightest point


def test_noise_is_what_the_formula_says_of_the_same_draws() -> None:
    clean = photos(2, 3, 9, 9)
    image = clean.double().numpy()
    for name, formula in {
        "gaussian_noise": lambda at, numbers: image + at["sigma"] * numbers,
        "speckle_noise": lambda at, numbers: image * (1 + at["sigma"] * numbers),
        "uniform_noise": lambda at, numbers: image + 2 * at["epsilon"] * (numbers - 0.5),
        "impulse_noise": lambda at, numbers: np.where(
            numbers < at["amount"] / 2, 0, np.where(numbers >= 1 - at["amount"] / 2, 1, image)
        ),
    }.items():
        at, (numbers,) = drawn(name, clean, 4)
        np.testing.assert_allclose(corrupt(name, clean, 4).numpy(), np.clip(formula(at, numbers), 0, 1), atol=1e-6)
    assert drawn("uniform_noise", clean, 2, epsilon=0.4)[0] == {"epsilon": pytest.approx(0.16)}


def test_shot_noise_has_the_mean_and_the_variance_of_photons() -> None:
    clean = torch.full((8, 1, 100, 100), 0.3)
    for severity, photons in ((1, 60), (3, 12), (4, 5)):
        found = corrupt("shot_noise", clean, severity, constants="imagenet").double()
        counts = (found * photons).flatten()
        assert torch.equal(counts.round(), counts.float().round().double())
        kept = stats.poisson(0.3 * photons).expect(lambda k, n=photons: np.minimum(k, n))  # what is over 1 is cut off
        assert counts.mean().item() == pytest.approx(kept, abs=5 * math.sqrt(0.3 * photons / 80_000))
        assert counts.var().item() == pytest.approx(0.3 * photons, rel=0.03)


def test_a_share_of_impulses_are_salt_and_as_many_pepper() -> None:
    found = corrupt("impulse_noise", torch.full((8, 1, 100, 100), 0.5), 5, constants="imagenet")
    for value in (0.0, 1.0):
        assert stats.binomtest(int((found == value).sum()), found.numel(), 0.135).pvalue > 1e-4


@given(st.floats(1e-3, 400), st.integers(0, 2**32))
@settings(max_examples=25)
def test_poisson_quantiles_are_scipys(mean: float, seed: int) -> None:
    uniform = torch.rand(2000, generator=torch.Generator().manual_seed(seed))
    normal = torch.randn(2000, generator=torch.Generator().manual_seed(seed))
    means = torch.full((2000,), mean)
    level = uniform.double().numpy() if means[0] < 10 else stats.norm.cdf(normal.double().numpy())
    found = _image_poisson.quantile(means, normal, uniform).numpy()
    off = np.abs(found - stats.poisson.ppf(level, float(means[0])))
    assert off.max() <= 1
    assert (off > 0).sum() <= 10  # a rate of less than 1 in 1,000


@given(st.data())
@settings(max_examples=150, deadline=None)
def test_images_keep_their_range_shape_and_type(data: st.DataObject) -> None:
    name, (dtype, low, high) = data.draw(st.sampled_from(EVERY)), data.draw(st.sampled_from(BOXES))
    channels = 3 if isinstance(low, torch.Tensor) or name == "saturate" else data.draw(st.sampled_from((1, 3)))
    size = data.draw(st.integers(8, 40)), data.draw(st.integers(8, 40))
    unit = photos(2, channels, *size, seed=data.draw(st.integers(0, 99)))
    unit = data.draw(st.sampled_from((unit, unit.round(), torch.zeros_like(unit), torch.ones_like(unit))))
    clean = (unit * (high - low) + low).to(dtype)
    clean = torch.minimum(torch.maximum(clean, torch.as_tensor(low, dtype=dtype)), torch.as_tensor(high, dtype=dtype))
    before, state = clean.clone(), torch.random.get_rng_state()
    severity = data.draw(st.floats(0, 5))
    constants = data.draw(st.sampled_from(("by_size", "cifar", "imagenet")))
    found = corrupt(name, clean, severity, (low, high), constants=constants)
    assert found.shape == clean.shape
    assert found.dtype == dtype
    assert found.isfinite().all()
    assert (found >= low).all()
    assert (found <= high).all()
    assert torch.equal(clean, before)
    assert torch.equal(torch.random.get_rng_state(), state)


@given(st.integers(0, 2**32))
@settings(max_examples=20)
def test_short_cuts_of_common_ranges_give_the_bytes_of_the_general_way(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    found = torch.rand(2, 3, 64, 64, generator=generator)
    found[0, 0] = (torch.randint(0, 255, (64, 64), generator=generator) + 0.5) / 255  # where rounding may go either way
    every = torch.arange(256, dtype=torch.uint8).reshape(1, 1, 16, 16).tile(2, 3, 4, 4)
    for clean, high in ((every, 255), (every.float() / 255, 1)):
        ground = ground_of(clean, 0, high)
        unit = opened(clean, ground)
        assert torch.equal(unit, ground.to_unit(clean))
        some = torch.where(torch.rand(2, 3, 64, 64, generator=generator) < 0.2, unit, found)
        expected, written = ground.from_unit(some, clean), torch.empty_like(clean)
        close(some.clone(), unit, clean, ground, out=written)
        assert torch.equal(written, expected)


@pytest.mark.parametrize("name", EVERY)
def test_severity_0_changes_no_bit(name: str) -> None:
    clean = torch.rand(3, 3, 11, 13, dtype=torch.float64)
    assert torch.equal(corrupt(name, clean, 0), clean)
    assert member(name).parameters(ground_of(clean), 0, member(name).options()) == {}


@given(st.integers(0, 2**32), st.floats(0.3, 20))
@settings(max_examples=20, deadline=None)
def test_products_with_filters_are_the_same_bits_in_any_order_of_addition(seed: int, sigma: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    images, filters = torch.rand(2, 1, 48, 48, generator=generator), _image_linear.gaussian(48, sigma, 4.0, "edge")
    order = torch.randperm(48, generator=generator)
    expected = _image_linear.separable(images, filters, filters)
    turned = _image_linear.separable(images[:, :, order][..., order], filters[:, order], filters[:, order])
    assert torch.equal(turned, expected)


@pytest.mark.parametrize("severity", [0.7, 3.5])
@pytest.mark.parametrize("name", EVERY)
def test_the_bytes_of_an_image_do_not_depend_on_its_batch_or_on_threads(name: str, severity: float) -> None:
    clean = photos(64, 3, 22, 33)
    whole = corrupt(name, clean, severity)
    order = torch.randperm(64, generator=torch.Generator().manual_seed(0))
    threads = torch.get_num_threads()
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            for part in order.split([1, 2, 7, 54])[: 4 if count == 1 else 3]:
                assert torch.equal(corrupt(name, clean[part], severity, positions=part.tolist()), whole[part])
            assert torch.equal(corrupt(name, clean, severity), whole)
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize("name", EVERY)
def test_all_severities_see_the_same_draws_in_any_order(name: str) -> None:
    clean = photos(3, 3, 16, 16)
    corruption, draws = member(name), Draws(1, name, range(3))
    for severity in (4, 1, 2.5, 5, 0.3):
        again = corruption.apply(clean, ground_of(clean), severity, draws.rewound(), corruption.options())
        assert torch.equal(again, corrupt(name, clean, severity))


FALLING = {"elastic_transform", "frost", "glass_blur", "saturate", "spatter", "zoom_blur"}
"""Whose published constants trade one effect for another, or do not rise at every step at every size."""


@pytest.mark.parametrize("constants", ["cifar", "imagenet"])
@pytest.mark.parametrize("name", EVERY)
def test_distance_rises_with_severity_on_average(name: str, constants: str) -> None:
    clean = photos(60, 3, 32, 32)
    levels = (0, 1, 2, 3, 4, 5)
    if name == "pixelate":
        clean = torch.rand(60, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    found = [(corrupt(name, clean, level, constants=constants) - clean).square().mean().item() for level in levels]
    assert found[1] > 0
    if name not in FALLING:
        assert all(later > 0.97 * earlier for earlier, later in itertools.pairwise(found))
        assert found[5] > found[1] > found[0] == 0


def test_what_cannot_be_corrupted_is_refused_with_the_reason() -> None:
    for name in EVERY:
        corruption = member(name)
        options = corruption.options()
        refuse = {
            channels: corruption.refuses(ground_of(torch.zeros(1, channels, 8, 8)), options) for channels in (1, 3, 4)
        }
        assert refuse[3] is None
        assert (refuse[4] is not None) == (name in COLOURED)
        assert (refuse[1] is not None) == (name == "saturate")
        assert "smaller than 8" in corruption.refuses(ground_of(torch.zeros(1, 3, 8, 7)), options)
        assert "not inputs (8, 8)" in corruption.refuses(ground_of(torch.zeros(1, 8, 8)), options)
        endless = ground_of(torch.zeros(1, 3, 8, 8), 0, math.inf)
        assert "not finite" in corruption.refuses(endless, options)


@pytest.mark.parametrize("name", [name for name in EVERY if name not in COLOURED])
def test_other_numbers_of_channels_are_corrupted_too(name: str) -> None:
    clean = photos(2, 5, 12, 12)
    found = corrupt(name, clean, 4)
    assert found.shape == clean.shape
    assert not torch.equal(found, clean)
