"""Time, memory and operations of HEAR beside the original and other audio models, in one run.

    taskset -c 0 python benchmarks/speed.py    # one CPU core, all models: some seven minutes
    python benchmarks/speed.py --quick         # the original and HEAR alone: half a minute
    python benchmarks/speed.py --threads 1 all --dtype bfloat16 --models original hear
    python benchmarks/speed.py --device cuda --dtype bfloat16 --seconds 10 --batch_sizes 1 16 64 256
    python benchmarks/speed.py --device cuda --dtype bfloat16 --seconds 10 --batch_sizes 16 64 --mode training
    python benchmarks/speed.py --device cuda --dtype bfloat16 --seconds 6 --batch_sizes 256 --mode pretraining

Each model runs in a process of its own, and they take turns. Weights are random. AST reads 10.24 s whatever it is
given: its feature extractor pads shorter clips and cuts longer ones. `training` is a step of fine-tuning with AdamW,
`pretraining` one of masked audio modelling, the codes made on the way. `--compile` compiles every model.
"""

import argparse
import time
from pathlib import Path

import torch

import report
from contestants import CLASSIFIERS, PRETRAINERS
from harness import Case, Settings, compete

QUICK = {"models": ["original", "hear"], "seconds": [1, 10], "ragged_batch_size": 0, "rounds": 2, "turn_seconds": 0.3}


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--mode", choices=["inference", "training", "pretraining"], default="inference", help="What is timed.")
    add("--models", nargs="+", choices=CLASSIFIERS, help="The first is what ratios refer to (default: all).")
    add("--device", choices=["cpu", "cuda"], default="cpu", help="Where the models run (default: cpu).")
    add("--dtype", choices=["float32", "bfloat16"], default="float32", help="Of weights; in training, of autocast.")
    add("--compile", action="store_true", help="Compile all models by torch.compile.")
    add("--threads", nargs="+", type=num_threads, default=[1], help='CPU threads, or "all" (default: 1).')
    add("--seconds", nargs="+", type=float, default=[1, 6, 6.1, 10, 11], help="Lengths of clips.")
    add("--batch_sizes", nargs="+", type=int, help="Clips of each length at once (default: 1, in training 4).")
    add(
        "--ragged_batch_size", type=int, help="Clips of 1 to 10 s at once, 0 = none (default: 8 on a CPU's inference)."
    )
    add("--rounds", type=int, default=3, help="Turns of each model for each case, two if they are slow (default: 3).")
    add("--turn_seconds", type=float, default=0.7, help="Shortest turn; it holds at least one run (default: 0.7).")
    add("--quick", action="store_true", help="Try it out: two models, two lengths, two short rounds.")
    add("--output_dir", type=Path, default=Path("runs/benchmark"), help="Where the results go.")
    if parser.parse_known_args(argv)[0].quick:
        parser.set_defaults(**QUICK)
    args = parser.parse_args(argv)
    contestants = PRETRAINERS if args.mode == "pretraining" else CLASSIFIERS
    args.models = args.models or list(contestants)
    args.batch_sizes = args.batch_sizes or [1 if args.mode == "inference" else 4]
    if unknown := [name for name in args.models if name not in contestants]:
        parser.error(
            f"--mode {args.mode} must name models among {', '.join(contestants)}, found: {', '.join(unknown)}."
        )
    if args.device == "cuda" and not torch.cuda.is_available():
        parser.error("--device cuda needs a GPU that this PyTorch can use, found none. Leave it out for the CPU.")
    if args.ragged_batch_size is None:
        args.ragged_batch_size = 8 if args.device == "cpu" and args.mode == "inference" else 0
    return args


def num_threads(text: str) -> int:
    threads = torch.get_num_threads() if text == "all" else int(text)
    if threads < 1:
        raise argparse.ArgumentTypeError(f'must be positive or "all", found: {text}')
    return threads


def cases(args: argparse.Namespace) -> list[Case]:
    """By threads, batch size and length."""
    found = []
    for threads in dict.fromkeys(args.threads):
        found += [Case(threads, (seconds,) * size) for size in args.batch_sizes for seconds in args.seconds]
        if args.ragged_batch_size:
            found.append(Case.ragged(threads, args.ragged_batch_size))
    return found


def main(argv: list[str] | None = None) -> None:
    args = parse(argv)
    settings = Settings(args.mode, args.device, args.dtype, args.compile, args.turn_seconds, args.rounds)
    print(report.description(settings), flush=True)
    results, start = [], time.perf_counter()
    for of_case in compete(args.models, cases(args), settings):
        results += of_case
        times = ", ".join(f"{result.model} {result.seconds_min:.3g}" for result in of_case)
        minutes = (time.perf_counter() - start) / 60
        print(
            f"[{minutes:4.1f} min] {of_case[0].case}, CPU threads: {of_case[0].threads}; seconds: {times}", flush=True
        )
        report.write(results, settings, args.output_dir)
    print("\n" + report.markdown(results, settings) + f"\nWritten to {args.output_dir}.")


if __name__ == "__main__":
    main()
