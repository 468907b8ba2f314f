"""Time, memory and operations of HEAR beside the original and other audio models, in one run.

    taskset -c 0 python benchmarks/speed.py    # one CPU core, all models: some seven minutes
    python benchmarks/speed.py --quick         # the original and HEAR alone: half a minute
    python benchmarks/speed.py --threads 1 all --dtype bfloat16 --models original hear
    python benchmarks/speed.py --models hear cnn --efficientat mn04
    python benchmarks/speed.py --device cuda --dtype bfloat16 --seconds 10 --batch_sizes 1 16 64 256
    python benchmarks/speed.py --device cuda --dtype bfloat16 --seconds 10 --batch_sizes 16 64 --mode training
    python benchmarks/speed.py --device cuda --dtype bfloat16 --seconds 6 --batch_sizes 256 --mode pretraining

Each model runs in a process of its own, and they take turns. Weights are random. AST reads 10.24 s whatever it is
given: its feature extractor pads shorter clips and cuts longer ones. `training` is a step of fine-tuning with AdamW,
`pretraining` one of masked audio modelling, the codes made on the way. `--compile` compiles every model.
"""

import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import torch

import report
from contestants import CLASSIFIERS, PRETRAINERS
from harness import Case, Settings, compete
from hear_hf.arguments import command_parser, option

QUICK = {"models": ["original", "hear"], "seconds": [1, 10], "ragged_batch_size": 0, "rounds": 2, "turn_seconds": 0.3}


@dataclass
class SpeedArguments:
    """What to time, on which clips, and how often."""

    mode: Literal["inference", "training", "pretraining"] = option(default="inference", help="What to time.")
    models: list[str] | None = option(
        default=None,
        help="Models to time, all by default; ratios refer to the first.",
        metadata={"choices": list(CLASSIFIERS)},
    )
    efficientat: Path | None = option(
        default=None, help="A folder that conversion/convert_efficientat.py wrote, in place of MobileNetV2."
    )
    device: Literal["cpu", "cuda"] = option(default="cpu", help="Where the models run.")
    dtype: Literal["float32", "bfloat16"] = option(default="float32", help="Of the weights; in training, of autocast.")
    compile: bool = option(default=False, help="Compile all models by torch.compile.")
    threads: list[str] = option(default_factory=lambda: ["1"], help="Numbers of CPU threads, or `all`.")
    seconds: list[float] = option(default_factory=lambda: [1, 6, 6.1, 10, 11], help="Lengths of the clips.")
    batch_sizes: list[int] | None = option(
        default=None, help="Clips of each length at once; 1 by default, and 4 in training."
    )
    ragged_batch_size: int | None = option(
        default=None, help="Clips of 1 to 10 s at once, 0 for none; 8 by default in inference on a CPU."
    )
    rounds: int = option(default=3, help="Turns of each model for each case; two if they are slow.")
    turn_seconds: float = option(default=0.7, help="Shortest turn, which holds at least one run.")
    quick: bool = option(default=False, help="Try it out: two models, two lengths, two short rounds.")
    output_dir: Path = option(default=Path("runs/benchmark"), help="Where the results go.")


def parse(argv: list[str] | None) -> SpeedArguments:
    """Reads the options, and fills in those whose default depends on others."""
    parser = command_parser(SpeedArguments, __doc__)
    if parser.parse_known_args(argv)[0].quick:
        parser.set_defaults(**QUICK)
    (args,) = parser.parse_args_into_dataclasses(argv)
    contestants = PRETRAINERS if args.mode == "pretraining" else CLASSIFIERS
    if unknown := [name for name in args.models or [] if name not in contestants]:
        parser.error(
            f"--mode {args.mode} must name models among {', '.join(contestants)}, found: {', '.join(unknown)}."
        )
    if args.device == "cuda" and not torch.cuda.is_available():
        parser.error("--device cuda needs a GPU that this PyTorch can use, found none. Leave it out for the CPU.")
    if wrong := [text for text in args.threads if text != "all" and not (text.isdecimal() and int(text) > 0)]:
        parser.error(f'--threads must be positive or "all", found: {", ".join(wrong)}.')
    return with_defaults(args, list(contestants))


def with_defaults(args: SpeedArguments, contestants: list[str]) -> SpeedArguments:
    ragged_batch_size = args.ragged_batch_size
    if ragged_batch_size is None:
        ragged_batch_size = 8 if args.device == "cpu" and args.mode == "inference" else 0
    return replace(
        args,
        models=args.models or contestants,
        batch_sizes=args.batch_sizes or [1 if args.mode == "inference" else 4],
        ragged_batch_size=ragged_batch_size,
    )


def num_threads(text: str) -> int:
    return torch.get_num_threads() if text == "all" else int(text)


def cases(args: SpeedArguments) -> list[Case]:
    """By threads, batch size and length."""
    found = []
    for threads in dict.fromkeys(map(num_threads, args.threads)):
        found += [Case(threads, (seconds,) * size) for size in args.batch_sizes for seconds in args.seconds]
        if args.ragged_batch_size:
            found.append(Case.ragged(threads, args.ragged_batch_size))
    return found


def main(argv: list[str] | None = None) -> None:
    args = parse(argv)
    settings = Settings(
        args.mode,
        args.device,
        args.dtype,
        args.compile,
        args.turn_seconds,
        args.rounds,
        efficientat=args.efficientat,
    )
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
