"""Time and memory of classifying long clips with the published size, on the CPU.

    python benchmarks/long_audio.py --minutes 1 10 60

Each length runs in a process of its own. Memory is the peak over the whole call above what the process held once the
model was loaded; of that, the waveform, its copy in a batch and the mask are what any model would be given.
"""

import resource
import subprocess
import sys
import time
from dataclasses import dataclass

import numpy as np
import torch

from hear_hf import HEARConfig, HEARFeatureExtractor, HEARForAudioClassification
from hear_hf.arguments import option, parse_arguments

SAMPLING_RATE = 16_000
MIB = 1024  # ru_maxrss counts KiB on Linux


def measure(minutes: float) -> tuple[float, float, float]:
    """Seconds to classify noise of that length, MiB above the loaded model, and MiB of the inputs among them."""
    model, feature_extractor = HEARForAudioClassification(HEARConfig(num_labels=50)).eval(), HEARFeatureExtractor()
    generator = np.random.default_rng(0)
    short = generator.standard_normal(SAMPLING_RATE, dtype=np.float32)
    with torch.no_grad():
        model(**feature_extractor(short, sampling_rate=SAMPLING_RATE, return_tensors="pt"))  # load the kernels too
    loaded = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    waveform = generator.standard_normal(int(60 * minutes * SAMPLING_RATE), dtype=np.float32)
    start = time.perf_counter()
    with torch.no_grad():
        inputs = feature_extractor(waveform, sampling_rate=SAMPLING_RATE, return_tensors="pt")
        logits = model(**inputs).logits
    seconds = time.perf_counter() - start
    if not logits.isfinite().all():
        raise RuntimeError(f"The logits of {minutes} minutes must be finite, found: {logits}.")
    given = waveform.nbytes + sum(tensor.nbytes for tensor in inputs.values())
    return seconds, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - loaded) / MIB, given / MIB**2


@dataclass
class LongAudioArguments:
    """How much audio to classify, on how many threads."""

    minutes: list[float] = option(default_factory=lambda: [1, 10, 60], help="Lengths to classify.")
    threads: int = option(default=1, help="CPU threads.")


def main(argv: list[str] | None = None) -> None:
    (args,) = parse_arguments(LongAudioArguments, argv, __doc__)
    torch.set_num_threads(args.threads)
    if len(args.minutes) == 1:
        seconds, memory, given = measure(args.minutes[0])
        rate = seconds / (60 * args.minutes[0])
        print(f"{args.minutes[0]:>8g} {seconds:>10.2f} {rate:>10.4f} {memory:>10.0f} {given:>10.0f}", flush=True)
        return
    print(
        f" minutes    seconds        RTF  extra MiB  of inputs   ({args.threads} threads, torch {torch.__version__})",
        flush=True,
    )
    for minutes in args.minutes:
        command = [sys.executable, __file__, "--threads", str(args.threads), "--minutes", str(minutes)]
        subprocess.run(command, check=True)


if __name__ == "__main__":
    main()
