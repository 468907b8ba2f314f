"""Thousands of clips of random lengths through one process: does its memory stay flat? (Linux)

    python benchmarks/soak.py    # 10,000 clips, a small model: two to ten minutes
    python benchmarks/soak.py --size published --num_clips 2000

Ends with an error if the memory grew by more than `--limit_mib` after the warm-up.
"""

import resource
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from hear_hf import HEARConfig, HEARFeatureExtractor, HEARForAudioClassification
from hear_hf.arguments import command_parser, option

SAMPLING_RATE = 16_000
SECONDS = (0.02, 12.0)
MIB = 2**20
SIZES = {
    "small": {
        "hidden_size": 48,
        "intermediate_size": 96,
        "num_hidden_layers": 2,
        "window_length": 125,
        "window_overlap": 25,
        "task_hidden_size": 48,
        "task_intermediate_size": 96,
        "max_position_embeddings": 250,
    },
    "published": {},
}


def resident_mib() -> float:
    """Memory that this process holds."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / MIB


def soak(model: Callable, num_clips: int, max_batch_size: int = 4, seed: int = 0) -> Iterator[tuple[int, float]]:
    """Classifies noise of random lengths in random batches: clips so far and resident MiB, after each batch."""
    feature_extractor, generator, num_done = HEARFeatureExtractor(), np.random.default_rng(seed), 0
    while num_done < num_clips:
        batch_size = min(int(generator.integers(1, max_batch_size, endpoint=True)), num_clips - num_done)
        lengths = (generator.uniform(*SECONDS, size=batch_size) * SAMPLING_RATE).astype(int)
        clips = [0.1 * generator.standard_normal(length, dtype=np.float32) for length in lengths]
        with torch.no_grad():
            logits = model(
                **feature_extractor(clips, sampling_rate=SAMPLING_RATE, padding=True, return_tensors="pt")
            ).logits
        if not logits.isfinite().all():
            raise RuntimeError(f"The logits must be finite, found: {logits} of clips of {lengths} samples.")
        num_done += batch_size
        yield num_done, resident_mib()


def growth(samples: list[tuple[int, float]], warm_up: int) -> float:
    """MiB from the first to the last fifth of the samples after `warm_up` clips.

    Of medians, for what a batch leaves to the allocator goes up and down.
    """
    flat = [mib for num_done, mib in samples if num_done > warm_up]
    fifth = max(1, len(flat) // 5)
    return statistics.median(flat[-fifth:]) - statistics.median(flat[:fifth])


@dataclass
class SoakArguments:
    """How many clips to classify, by which model, and how much memory they may take."""

    num_clips: int = option(default=10_000, help="Clips in all.")
    warm_up: int = option(default=1000, help="First clips that do not count.")
    size: Literal["small", "published"] = option(default="small", help="Size of the model.")
    max_batch_size: int = option(default=4, help="Most clips at once.")
    threads: int = option(default=1, help="CPU threads.")
    limit_mib: float = option(default=16.0, help="Growth in MiB that is an error.")


def main(argv: list[str] | None = None) -> None:
    parser = command_parser(SoakArguments, __doc__)
    (args,) = parser.parse_args_into_dataclasses(argv)
    if args.warm_up >= args.num_clips:
        parser.error(f"--warm_up must be below --num_clips, found: {args.warm_up} and {args.num_clips}.")
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    model = HEARForAudioClassification(HEARConfig(num_labels=50, **SIZES[args.size])).eval()
    print(f"{'clips':>8} {'minutes':>8} {'MiB':>8}\n{0:>8} {0:>8} {resident_mib():>8.0f}", flush=True)
    samples, start, printed = [], time.perf_counter(), 0
    for num_done, mib in soak(model, args.num_clips, args.max_batch_size):
        samples.append((num_done, mib))
        if num_done * 10 // args.num_clips > printed:
            printed = num_done * 10 // args.num_clips
            print(f"{num_done:>8} {(time.perf_counter() - start) / 60:>8.1f} {mib:>8.0f}", flush=True)
    grown, most = growth(samples, args.warm_up), max(mib for _, mib in samples)
    print(f"most: {most:.0f} MiB; growth after {args.warm_up} clips: {grown:+.1f} MiB")
    if grown > args.limit_mib:
        sys.exit(f"Memory must not grow by more than {args.limit_mib} MiB, found: {grown:.1f}.")


if __name__ == "__main__":
    main()
