"""Seconds to import HEAR and to load a checkpoint, beside AST-base, each time in a fresh process.

    python benchmarks/loading.py --rounds 5

Both are saved with random weights first. The two take turns, and the fastest of all rounds counts.
"""

import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import ASTConfig, ASTFeatureExtractor, ASTForAudioClassification

import report
from hear_hf import HEARConfig, HEARFeatureExtractor, HEARForAudioClassification
from hear_hf.arguments import option, parse_arguments

# By model: the module that users import, its feature extractor and its classifier.
NAMES = {
    "HEAR": ("hear_hf", "HEARFeatureExtractor", "HEARForAudioClassification"),
    "AST-base": ("transformers", "ASTFeatureExtractor", "ASTForAudioClassification"),
}
SCRIPT = """
import sys, time
start = time.perf_counter()
from {0} import {1}, {2}
imported = time.perf_counter()
from transformers.utils.logging import disable_progress_bar
disable_progress_bar()
{1}.from_pretrained(sys.argv[1]), {2}.from_pretrained(sys.argv[1])
print(imported - start, time.perf_counter() - imported)
"""


def save(folder: Path) -> None:
    """Writes one checkpoint for each model, below its name."""
    for name, model, feature_extractor in (
        ("HEAR", HEARForAudioClassification(HEARConfig(num_labels=50)), HEARFeatureExtractor()),
        ("AST-base", ASTForAudioClassification(ASTConfig(num_labels=50)), ASTFeatureExtractor()),
    ):
        model.save_pretrained(folder / name)
        feature_extractor.save_pretrained(folder / name)


def load(name: str, folder: Path) -> tuple[float, float]:
    """Seconds of the import and of loading, in a process of its own."""
    command = [sys.executable, "-W", "ignore", "-c", SCRIPT.format(*NAMES[name]), str(folder / name)]
    result = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    imported, loaded = map(float, result.stdout.split())
    return imported, loaded


def compare(rounds: int) -> dict[str, list[tuple[float, float]]]:
    """What `load` gave in each round, by model."""
    found = {name: [] for name in NAMES}
    with tempfile.TemporaryDirectory() as folder:
        save(Path(folder))
        for i in range(rounds):
            for name, times in found.items():
                times.append(load(name, Path(folder)))
                print(f"round {i + 1} of {rounds}, {name}: {times[-1][0]:.2f} s, {times[-1][1]:.2f} s", flush=True)
    return found


@dataclass
class LoadingArguments:
    """How often to load."""

    rounds: int = option(default=5, help="Processes for each model.")


def main(argv: list[str] | None = None) -> None:
    (args,) = parse_arguments(LoadingArguments, argv, __doc__)
    times = compare(args.rounds)

    print(f"\n{report.cpu_name()}, PyTorch {torch.__version__}\n")
    print("| model | import, s | from_pretrained, s | both, s |\n|---|---|---|---|")
    for name, rounds in times.items():
        columns = [*zip(*rounds, strict=True), [sum(both) for both in rounds]]
        print(f"| {name} | " + " | ".join(f"{min(column):.2f}" for column in columns) + " |")


if __name__ == "__main__":
    main()
