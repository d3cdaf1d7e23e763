"""What it costs to look after every example: bounds by betting beside the fixed-sample ones.

    python benchmarks/betting_error_rates.py [--samples 400] [--longest 4000] [--seed 0]

First table: samples of paired outcomes of a known drop grow until a ``max_drop`` gate is decided. How often that is a
PASS or a FAIL, after how many examples, and how many Tango's interval needs for 90 % power where the drop is 0; at the
margin itself no decision may come more often than once in 20 for each side.

Second table: the whole sample used. How many times as wide as Tango's and Clopper and Pearson's the interval by betting
is, medians, each bound at 95 %.
"""

from __future__ import annotations

import argparse
import sys

import numpy as np
from numpy.typing import NDArray

from pruneproof.betting import mean_bounds
from pruneproof.statistics import binomial_bounds, tango_bounds

CONFIDENCE = 0.95
GATES = ((0.05, 0.02), (0.05, 0.05), (0.10, 0.05), (0.10, 0.10), (0.20, 0.05))
"""Discordance and margin."""
Changes = NDArray[np.int64]


def drawn(generator: np.random.Generator, discordance: float, drop: float, n: int) -> Changes:
    """``(n,)``: 1 where only the dense model is right, -1 where only the variant is."""
    rates = [(discordance - drop) / 2, 1 - discordance, (discordance + drop) / 2]
    return generator.choice(np.array([-1, 0, 1]), p=rates, size=n)


def when(changes: Changes, margin: float) -> tuple[str, int]:
    """The verdict, and after how many examples; bounds are the tightest on the way, so bisection finds the first."""

    def says(n: int) -> str:
        lower, upper = mean_bounds(changes[:n], CONFIDENCE, -1.0, 1.0)
        return "PASS" if upper <= margin else "FAIL" if lower > margin else ""

    verdict = says(len(changes))
    if not verdict:
        return "", len(changes)
    few, enough = 0, len(changes)
    while enough - few > 1:
        middle = (few + enough) // 2
        few, enough = (few, middle) if says(middle) else (middle, enough)
    return says(enough), enough


def needed(generator: np.random.Generator, discordance: float, margin: float, samples: int) -> int:
    """Examples with which Tango's bound passes nine in ten samples without a drop, to within 5 %."""
    n = 50
    while True:
        rates = [discordance / 2, discordance / 2, 1 - discordance]
        counts = generator.multinomial(n, rates, size=samples)
        passes = [tango_bounds(lost, gained, n, CONFIDENCE).upper <= margin for lost, gained, _ in counts]
        if np.mean(passes) >= 0.9:
            return n
        n = max(n + 1, round(n * 1.05))


def decisions(generator: np.random.Generator, samples: int, longest: int) -> None:
    _say("| discordance | margin | true drop | PASS | FAIL | median n | mean n | Tango, 90 % power |")
    _say("|---|---|---|---|---|---|---|---|")
    for discordance, margin in GATES:
        fixed = needed(generator, discordance, margin, samples)
        for times in (0, 1, 2, 4):
            drop = times * margin
            if drop > discordance:
                continue
            found = [when(drawn(generator, discordance, drop, longest), margin) for _ in range(samples)]
            sizes = [n for _, n in found]
            shares = [np.mean([verdict == wanted for verdict, _ in found]) for wanted in ("PASS", "FAIL")]
            _say(
                f"| {discordance:.2f} | {margin:.2f} | {drop:.2f} | {shares[0]:.1%} | {shares[1]:.1%} "
                f"| {np.median(sizes):.0f} | {np.mean(sizes):.0f} | {fixed if times == 0 else ''} |"
            )


def widths(generator: np.random.Generator, samples: int) -> None:
    _say("\n| n | drop, discordance 0.05 | drop, 0.20 | share, 0.6 | share, 0.95 |")
    _say("|---|---|---|---|---|")
    for n in (100, 300, 1000, 3000):
        cells = []
        for discordance in (0.05, 0.20):
            ratios = []
            for _ in range(samples):
                changes = drawn(generator, discordance, 0.0, n)
                fixed = tango_bounds(int((changes > 0).sum()), int((changes < 0).sum()), n, CONFIDENCE)
                ratios.append(_width(mean_bounds(changes, CONFIDENCE, -1.0, 1.0)) / _width(fixed))
            cells.append(np.median(ratios))
        for share in (0.6, 0.95):
            ratios = []
            for _ in range(samples):
                hits = generator.random(n) < share
                fixed = binomial_bounds(int(hits.sum()), n, CONFIDENCE)
                ratios.append(_width(mean_bounds(hits, CONFIDENCE)) / _width(fixed))
            cells.append(np.median(ratios))
        _say(f"| {n} | " + " | ".join(f"{cell:.2f}" for cell in cells) + " |")


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def _width(bounds: tuple[float, float]) -> float:
    return bounds[1] - bounds[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=400)
    parser.add_argument("--longest", type=int, default=4000)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    generator = np.random.default_rng(asked.seed)
    decisions(generator, asked.samples, asked.longest)
    widths(generator, min(asked.samples, 100))


if __name__ == "__main__":
    main()
