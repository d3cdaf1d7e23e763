"""How long a plan for a ResNet-50 takes beside Torch-Pruning's one-shot step, and how much memory each needs.

    python benchmarks/plan_resnet50.py [--rounds 7] [--threads 1]

Both remove 30 % of the channels, all layers compared, by the L2 norm of their weights, from torchvision's ResNet-50
with random weights, traced with one image of 224 × 224. Torch-Pruning's step changes the network that it is given, so
it gets a fresh copy, made before the clock starts. The two take turns in one process, after one round that is not
counted. Peak memory is that of a fresh process each: the rise of its resident set over what it held with everything
imported, the network included, as a multiple of the network's own size.

Needs torchvision; the Llama line needs transformers.
"""

from __future__ import annotations

import argparse
import copy
import gc
import importlib.metadata
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torchvision

RATIO = 0.3
DIGEST = "0" * 64
"""Of the dense network: an audit knows it from loading the subject, before it plans anything."""
PACKAGES = ("torch", "torchvision", "torch-pruning", "transformers")


def network() -> torch.nn.Module:
    """ResNet-50, random weights, always the same."""
    torch.manual_seed(0)
    return torchvision.models.resnet50().eval()


def image() -> torch.Tensor:
    return torch.randn(1, 3, 224, 224, generator=torch.Generator().manual_seed(1))


def ours(model: torch.nn.Module) -> None:
    """A plan: groups, scores, selection."""
    from pruneproof.pruning import Planner
    from pruneproof.recipe import Prune
    from pruneproof.subject import Data, Subject

    recipe = Prune.model_validate(
        {"name": "r", "ratios": [RATIO], "granularity": "channel", "criterion": "l2_norm", "scope": "global"}
    )
    subject = Subject(model=model, task="classification", test=Data(image(), torch.tensor([0])))
    Planner(recipe, subject, 0, DIGEST).plan(RATIO)


def theirs(model: torch.nn.Module) -> None:
    """Construction of the pruner, and its step."""
    import torch_pruning

    torch_pruning.pruner.MagnitudePruner(
        model,
        image(),
        importance=torch_pruning.importance.MagnitudeImportance(p=2),
        pruning_ratio=RATIO,
        global_pruning=True,
        ignored_layers=[model.fc],
    ).step()


SIDES: dict[str, Callable[[torch.nn.Module], None]] = {"PruneProof": ours, "Torch-Pruning": theirs}


def seconds(side: Callable[[torch.nn.Module], None], model: torch.nn.Module) -> float:
    start = time.perf_counter()
    side(model)
    return time.perf_counter() - start


def times(rounds: int) -> dict[str, list[float]]:
    """Seconds of each side, round by round."""
    dense = network()
    found: dict[str, list[float]] = {name: [] for name in SIDES}
    for position in range(rounds + 1):
        for name, side in SIDES.items():
            took = seconds(side, copy.deepcopy(dense))
            if position:
                found[name].append(took)
    return found


def resident(entry: str) -> float:
    """``VmRSS``, what this process holds now, or ``VmHWM``, the most that it held, in MiB. Linux only."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(float(line.split()[1]) for line in lines if line.startswith(entry)) / 2**10


def memory(name: str) -> None:
    """Prints how far memory rises while ``name`` runs, the network included, in MiB."""
    SIDES[name](torchvision.models.resnet18(num_classes=2).eval())  # so that every import is in place
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")  # from here on the most that it held
    before = resident("VmRSS")
    SIDES[name](network())
    write(f"{resident('VmHWM') - before:.0f}")


def llama() -> str:
    """The graph of a Llama of one layer, which ``DependencyGraph.get_pruning_group`` never finishes."""
    try:
        import transformers
    except ImportError:
        return "not measured: transformers is not installed"
    from pruneproof import graph

    config = transformers.LlamaConfig(
        vocab_size=32,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=4,
        num_key_value_heads=2,
        use_cache=False,
    )
    model = transformers.LlamaForCausalLM(config).eval()
    start = time.perf_counter()
    found = graph.groups(model, {"input_ids": torch.arange(8).reshape(1, 8)}, 60.0)
    took = time.perf_counter() - start
    return f"{took:.2f} s, {len(found.groups)} groups, {len(found.whole)} layers left whole"


def write(line: str) -> None:
    sys.stdout.write(f"{line}\n")


def report(rounds: int, threads: int) -> None:
    torch.set_num_threads(threads)
    found = times(rounds)
    medians = {name: statistics.median(took) for name, took in found.items()}
    size = sum(t.numel() * t.element_size() for t in network().state_dict().values()) / 2**20
    versions = ", ".join(f"{name} {version(name)}" for name in PACKAGES)
    write(f"{versions}; Python {platform.python_version()}; {threads} thread(s); {rounds} rounds\n")
    write("| | median | fastest | slowest | peak memory, with the network | in networks |")
    write("|---|---|---|---|---|---|")
    for name, took in found.items():
        command = [sys.executable, __file__, "--memory", name, "--threads", str(threads)]
        rise = float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        shown = [f"{value:.3f} s" for value in (medians[name], min(took), max(took))]
        write(f"| {name} | {' | '.join(shown)} | {rise:.0f} MiB | {rise / size:.2f} |")
    write(f"\nPruneProof takes {medians['PruneProof'] / medians['Torch-Pruning']:.2f} of Torch-Pruning's time.")
    write(f"The network holds {size:.0f} MiB. A Llama of one layer: {llama()}.")


def version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "absent"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--memory", choices=SIDES, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.memory:
        torch.set_num_threads(asked.threads)
        memory(asked.memory)
    else:
        report(asked.rounds, asked.threads)
