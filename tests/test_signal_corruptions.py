"""Signals corrupted: measured against what their parameters say."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pruneproof import registry
from pruneproof.corruptions import Corruption
from pruneproof.domain import Box
from pruneproof.shift.draws import Draws
from pruneproof.shift.ground import Ground

KEYS: dict[str, dict[str, Any]] = {
    "baseline_wander": {},
    "clipping": {},
    "dropouts": {},
    "gain_error": {},
    "mains_hum": {"sample_rate": 250.0},
    "rate_drift": {},
    "resampling_error": {},
    "snr_noise": {},
    "time_shift": {},
}


def member(name: str) -> Corruption:
    found: Corruption = registry.member("pruneproof.corruptions", name).CORRUPTION
    return found


def ground_of(clean: torch.Tensor, low: Any = -10.0, high: Any = 10.0) -> Ground:
    return Ground("signal", tuple(clean.shape[1:]), clean.dtype, Box(low, high), clean)


def corrupted(
    name: str, clean: torch.Tensor, severity: float, positions: Any = None, ground: Ground | None = None, **keys: Any
) -> torch.Tensor:
    one, ground = member(name), ground or ground_of(clean)
    options = one.options(**{**KEYS[name], **keys})
    assert one.refuses(ground, options) is None
    draws = Draws(5, name, range(len(clean)) if positions is None else positions)
    return one.apply(clean, ground, severity, draws, options)


def refusal(name: str, ground: Ground, **keys: Any) -> str | None:
    return member(name).refuses(ground, member(name).options(**keys))


def sines(samples: int = 4000, cycles: float = 7, count: int = 20) -> torch.Tensor:
    time = torch.arange(samples, dtype=torch.float64) / samples
    return torch.sin(2 * math.pi * cycles * time)[None].repeat(count, 1)


DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.int16, torch.uint8]


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(DTYPES),
    st.sampled_from([(2,), (17,), (64,), (3, 33), (1, 100)]),
    st.sampled_from([(0.1, 0.7), (-1.0, 1.0), (-100.0, 3.3), (0.0, 200.0)]),
    st.sampled_from([0.01, 1.0, 2.5, 5.0]),
    st.integers(0, 2**31),
)
def test_any_signal_keeps_range_shape_and_dtype_and_comes_out_the_same_in_any_batch(
    dtype: torch.dtype, shape: tuple[int, ...], bounds: tuple[float, float], severity: float, seed: int
) -> None:
    low, high = bounds
    if not dtype.is_floating_point:
        low, high = max(math.floor(low), 0 if dtype == torch.uint8 else -100), math.ceil(high)
    unit = torch.rand(7, *shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    wide = (unit * 1.2 - 0.1).clamp(0, 1) * (high - low) + low
    clean = wide.to(dtype)
    if dtype.is_floating_point:  # those that rounding moved out of the range
        clean = torch.where((clean.double() < low) | (clean.double() > high), torch.tensor(0.5).to(dtype), clean)
    before, ground = clean.clone(), ground_of(clean, low, high)
    for name, keys in KEYS.items():
        if refusal(name, ground, **keys) is not None:
            assert name == "baseline_wander"
            assert shape == (2,)
            continue
        out = corrupted(name, clean, severity, ground=ground)
        assert out.shape == clean.shape
        assert out.dtype == dtype
        assert low <= float(out.double().min()) <= float(out.double().max()) <= high
        order = [3, 6, 0]
        assert torch.equal(corrupted(name, clean[order], severity, order, ground), out[order])
        alone = [corrupted(name, clean[i : i + 1], severity, [i], ground) for i in range(7)]
        assert torch.equal(torch.cat(alone), out)
        assert torch.equal(corrupted(name, clean, 0.0, ground=ground), clean)
        assert torch.equal(clean, before)


@pytest.mark.parametrize("name", sorted(KEYS))
def test_signals_have_the_same_bytes_on_one_thread_and_on_two_in_batches_of_1_2_7_and_64(name: str) -> None:
    clean = torch.randn(64, 2, 2000, generator=torch.Generator().manual_seed(1))
    wanted, threads = corrupted(name, clean, 3.3), torch.get_num_threads()
    for size, count in ((1, 2), (2, 1), (7, 2), (64, 2)):
        torch.set_num_threads(count)
        ground = ground_of(clean)
        parts = [
            corrupted(name, clean[i : i + size], 3.3, range(i, min(i + size, 64)), ground) for i in range(0, 64, size)
        ]
        torch.set_num_threads(threads)
        assert torch.equal(torch.cat(parts), wanted)


@pytest.mark.parametrize(("severity", "snr"), [(0.5, 46.02), (1, 40), (2, 30), (2.5, 25), (5, 0)])
def test_noise_has_the_signal_to_noise_ratio_that_it_states_whatever_the_offset(severity: float, snr: float) -> None:
    clean = sines() * 0.5 + 3
    noise = corrupted("snr_noise", clean, severity) - clean
    power = 0.5**2 / 2
    assert 10 * math.log10(power / float(noise.square().mean())) == pytest.approx(snr, abs=0.1)
    stated = member("snr_noise").parameters(ground_of(clean), severity, member("snr_noise").options())
    assert stated["snr_db"] == pytest.approx(snr, abs=0.01)


def test_noise_of_a_channel_is_scaled_by_its_own_power_and_a_constant_one_stays() -> None:
    clean = torch.stack([sines(), sines() * 0.01, torch.full_like(sines(), 0.3)], dim=1)
    noise = corrupted("snr_noise", clean, 4) - clean
    ratio = noise[:, 0].std() / noise[:, 1].std()
    assert float(ratio) == pytest.approx(100, rel=0.02)
    assert torch.equal(corrupted("snr_noise", clean, 4)[:, 2], clean[:, 2])


@pytest.mark.parametrize(("severity", "level"), [(1, 0.9), (3, 0.6), (5, 0.2)])
def test_a_clipped_sine_is_at_its_limit_for_the_share_of_time_that_it_would_be_above(
    severity: float, level: float
) -> None:
    clean = sines(count=1) * 3 + 2
    out = corrupted("clipping", clean, severity)
    assert float((out - 2).abs().max()) == pytest.approx(3 * level, rel=1e-4)
    assert float((out != clean).double().mean()) == pytest.approx(1 - 2 / math.pi * math.asin(level), abs=0.005)


def test_resampling_by_two_keeps_every_second_sample_and_puts_the_mean_between() -> None:
    clean = torch.tensor([[0.0, 5.0, 1.0, -7.0, 3.0, 9.0]])
    assert corrupted("resampling_error", clean, 3).tolist() == [[0.0, 0.5, 1.0, 2.0, 3.0, 9.0]]


@settings(max_examples=60, deadline=None)
@given(st.integers(2, 60), st.floats(0.01, 5), st.integers(0, 2**31))
def test_resampling_is_linear_interpolation_there_and_back(samples: int, severity: float, seed: int) -> None:
    clean = np.random.default_rng(seed).normal(size=samples)
    one = member("resampling_error")
    tensor = torch.from_numpy(clean)[None]
    factor = float(one.parameters(ground_of(tensor), severity, one.options())["factor"])
    fine = np.arange(samples)
    coarse = [k * factor for k in range(int((samples - 1) / factor) + 1)] + [samples - 1.0]
    wanted = np.interp(fine, coarse, np.interp(coarse, fine, clean))
    np.testing.assert_allclose(corrupted("resampling_error", tensor, severity)[0].numpy(), wanted, atol=1e-9)


def test_a_fast_clock_reads_the_signal_at_stretched_times() -> None:
    clean = torch.arange(1000, dtype=torch.float64)[None].repeat(40, 1) / 100
    out = corrupted("rate_drift", clean, 4)
    times = np.arange(1000)
    fast, slow = (np.clip(times * factor, 0, 999) / 100 for factor in (1.02, 0.98))
    found = [(np.allclose(row, fast), np.allclose(row, slow)) for row in out.numpy()]
    assert all(a != b for a, b in found)
    assert {a for a, _ in found} == {True, False}


def test_a_time_shift_moves_the_samples_and_holds_or_wraps_the_ends() -> None:
    clean = torch.arange(100.0)[None].repeat(40, 1) / 10
    later, earlier = [0.0] * 10 + list(range(90)), [*range(10, 100), *[99.0] * 10]
    for fill, wanted in (
        ("edge", [later, earlier]),
        ("wrap", [[*range(90, 100), *range(90)], [*range(10, 100), *range(10)]]),
    ):
        out = corrupted("time_shift", clean, 4, fill=fill)
        found = {tuple(row) for row in (out * 10).round().tolist()}
        assert found == {tuple(map(float, row)) for row in wanted}
    assert member("time_shift").parameters(ground_of(clean), 4, member("time_shift").options()) == {"samples": 10}


def test_dropouts_lose_their_share_of_samples_in_gaps_of_their_length() -> None:
    clean = torch.ones(200, 2, 1000)
    out = corrupted("dropouts", clean, 4, ground=ground_of(clean, 0.0, 0.5 * 2 + 3))
    lost = out != clean
    assert out[lost].unique().tolist() == [2.0]
    assert lost.double().mean() == pytest.approx(0.2, abs=0.01)
    assert torch.equal(lost[:, 0], lost[:, 1])
    assert member("dropouts").parameters(ground_of(clean), 4, member("dropouts").options())["gap"] == 20
    for row in lost[:50, 0].long():
        edges = torch.diff(row)
        starts, ends = (edges == 1).nonzero().flatten().tolist(), (edges == -1).nonzero().flatten().tolist()
        inner = [end - start for start, end in zip(starts, [e for e in ends if starts and e > starts[0]], strict=False)]
        assert all(length % 20 == 0 for length in inner)


def test_a_gap_can_hold_the_last_sample_or_be_zero() -> None:
    clean = torch.arange(1.0, 101.0)[None].repeat(30, 1) / 100
    held, zero = (corrupted("dropouts", clean, 5, fill=fill) for fill in ("hold", "zero"))
    for row, gaps, own in zip(held.tolist(), (zero == 0).tolist(), clean.tolist(), strict=True):
        last = next(value for value, gap in zip(own, gaps, strict=True) if not gap)
        for value, gap, clean_value in zip(row, gaps, own, strict=True):
            last = last if gap else clean_value
            assert value == last


def test_gaps_at_a_level_that_the_range_does_not_have_are_refused() -> None:
    clean = torch.ones(1, 10)
    assert "zero is out of the bounds" in str(refusal("dropouts", ground_of(clean, 0.5, 2.0), fill="zero"))
    assert "no middle" in str(refusal("dropouts", ground_of(clean, -math.inf, math.inf)))
    assert refusal("dropouts", ground_of(clean, -math.inf, math.inf), fill="hold") is None


@pytest.mark.parametrize(
    ("name", "keys", "cycles", "amplitude"),
    [("baseline_wander", {"cycles": 3.0}, 3, 0.2), ("mains_hum", {"sample_rate": 1000.0}, 200, 0.1)],
)
def test_an_added_sine_has_its_frequency_and_its_share_of_the_signals_range_and_any_phase(
    name: str, keys: dict[str, Any], cycles: int, amplitude: float
) -> None:
    clean = sines(count=30)
    added = (corrupted(name, clean, 3, **keys) - clean).numpy()
    spectrum = np.fft.rfft(added, axis=1) / 2000
    assert (np.abs(spectrum).argmax(axis=1) == cycles).all()
    np.testing.assert_allclose(np.abs(spectrum[:, cycles]), amplitude * 2, rtol=1e-5)
    phases = np.angle(spectrum[:, cycles])
    assert abs(np.exp(1j * phases).mean()) < 0.5


def test_hum_needs_a_sample_rate_that_can_show_it() -> None:
    ground = ground_of(sines(count=1))
    assert "sample_rate" in str(refusal("mains_hum", ground))
    assert "half the sample rate" in str(refusal("mains_hum", ground, sample_rate=80.0))
    assert "more than 4000 samples" in str(refusal("baseline_wander", ground, cycles=2000.0))


def test_a_gain_error_of_six_decibels_doubles_or_halves_the_swing_about_the_mean() -> None:
    clean = sines(count=30) + 1
    out = corrupted("gain_error", clean, 4) - 1
    ratio = out.abs().amax(dim=1) / (clean - 1).abs().amax(dim=1)
    assert sorted({round(float(one), 3) for one in ratio}) == [round(10**-0.3, 3), round(10**0.3, 3)]


def test_signals_of_another_shape_or_of_one_sample_are_refused() -> None:
    for shape, reason in (((1, 2, 3, 4), "(channels, samples)"), ((1, 1), "two samples")):
        assert reason in str(refusal("clipping", ground_of(torch.ones(shape))))


def test_bounds_of_each_channel_are_kept() -> None:
    clean = torch.zeros(4, 2, 50)
    clean[..., ::2] = 0.5
    low, high = torch.tensor([[-0.1], [-2.0]]), torch.tensor([[0.6], [2.0]])
    out = corrupted("snr_noise", clean, 5, ground=ground_of(clean, low, high))
    assert float(out[:, 0].min()) == pytest.approx(-0.1)
    assert float(out[:, 0].max()) == pytest.approx(0.6)
    assert float(out[:, 1].max()) > 0.6
