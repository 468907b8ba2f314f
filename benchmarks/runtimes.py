"""Time and memory of HEAR in several runtimes beside the original, in one run on one thread. Prints a Markdown table.

    taskset -c 0 python benchmarks/runtimes.py    # exports two models and times them: the first time half an hour

Ratios refer to the original in the published size, which takes turns with the others. Memory is what a process of its
own takes to load a model and to read the longest clip, above its libraries. Exported files stay in `output_dir`, and a
further run reads them again. Needs `pip install "hear_hf[onnx]"`, and leaves out the runtimes that are not installed.
"""

from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from importlib import import_module
from importlib.metadata import version
from multiprocessing import get_context
from pathlib import Path

import torch

import report
from contestants import CLASSIFIERS, NUM_LABELS
from harness import Case, Memory, Result, Settings, Worker, result
from hear_hf import HEARConfig, HEARForAudioClassification
from hear_hf.arguments import option, parse_arguments
from hear_hf.exports import load_classifier
from runtime_contestants import RUNTIMES, Library

PUBLISHED = "published size"  # with random weights, which are as fast as others


@dataclass
class RuntimesArguments:
    """What to time, and how often."""

    models: list[str] = option(
        default_factory=lambda: [PUBLISHED, "checkpoints/hear-tiny"],
        help=f"Classifiers to time: folders, or `{PUBLISHED}` with random weights.",
    )
    runtimes: list[str] = option(
        default_factory=lambda: [*RUNTIMES], metadata={"choices": [*RUNTIMES]}, help="Time these alone."
    )
    calibration_data: str = option(default="examples/sounds", help="Measure OpenVINO's integers on this folder.")
    seconds: list[float] = option(default_factory=lambda: [1, 10], help="Lengths of the clips.")
    rounds: int = option(default=3, help="Turns of each runtime for each length.")
    turn_seconds: float = option(default=0.7, help="Shortest turn, which holds at least one run.")
    cpu_time: bool = option(
        default=False, help="Count the processor's time alone, on a machine that others use at the same time."
    )
    output_dir: str = option(default="runs/runtimes", help="Where exported files and results go.")


@dataclass(frozen=True)
class RuntimesSettings(Settings):
    """What holds for one model."""

    folder: Path = Path()

    @property
    def contestants(self) -> dict:
        loads = {name: (each.label, partial(each.contestant, self.folder)) for name, each in RUNTIMES.items()}
        return {"original": CLASSIFIERS["original"]} | loads


def installed(names: list[str]) -> list[str]:
    """Those runtimes whose library is installed; says what installs the others."""
    for library in dict.fromkeys(RUNTIMES[name].library for name in names):
        if not library.is_installed():
            labels = (RUNTIMES[name].label for name in names if RUNTIMES[name].library == library)
            print(f'Left out: {"; ".join(labels)}. They need: pip install "{library.install}"')
    return [name for name in names if RUNTIMES[name].library.is_installed()]


def prepare(name: str, libraries: list[Library], folder: Path, args: RuntimesArguments) -> None:
    """Saves a model and exports it into a folder, unless that was done."""
    if not (folder / "model").exists():
        torch.manual_seed(0)
        published = HEARConfig(num_labels=NUM_LABELS)
        model = HEARForAudioClassification(published) if name == PUBLISHED else load_classifier(name)
        model.save_pretrained(folder / "model")
    for library in libraries:
        if library.export:  # in a process of its own, for together some crash
            in_a_process(export, library, folder, args)


def export(library: Library, folder: Path, args: RuntimesArguments) -> None:
    library.export(load_classifier(str(folder / "model")), folder, args.seconds, args.calibration_data)


def take_turns(names: list[str], case: Case, settings: RuntimesSettings) -> list[Result]:
    """Times runtimes on one clip, in turns, so that other load meets them all."""
    workers = {name: Worker(name, settings) for name in names}
    counts = {name: worker.prepare(case) for name, worker in workers.items()}
    turns: dict[str, list] = {name: [] for name in names}
    for _ in range(settings.rounds):
        for name, worker in workers.items():
            turns[name].append(worker.turn())
    return [result(name, case, settings, counts[name], turns[name]) for name in names]


def memory_of(name: str, settings: RuntimesSettings, seconds: float) -> float | None:
    """MiB to load a model and to read a clip, in a process that loads nothing else; `None` where it cannot be told."""
    if name in RUNTIMES:
        import_module(RUNTIMES[name].library.modules[0])
    clips = Case(1, (seconds,)).clips()
    memory = Memory("cpu")
    loaded = settings.contestants[name][1]()
    with torch.no_grad():
        loaded.model.eval()(**loaded.inputs(clips, "cpu", torch.float32))
    return memory.peak()


def in_a_process(function: Callable, *arguments):
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def markdown(found: dict[str, dict], seconds: list[float]) -> str:
    """Runtimes by models and lengths: milliseconds, their ratio to the original's, and MiB."""
    labels = {result.model: result.label for one in found.values() for result in one["results"]}
    head = [f"{name}, {column}" for name in found for column in (*(f"{s:g} s" for s in seconds), "MiB")]
    lines = ["| | " + " | ".join(head) + " |", "|---|" + "---|" * len(head)]
    for runtime, label in labels.items():
        cells = []
        for one in found.values():
            by_case = {(result.model, result.case): 1000 * result.seconds_min for result in one["results"]}
            for case in (f"{s:g} s" for s in seconds):
                value = by_case[runtime, case]
                cells.append(f"{value:.3g} ({value / by_case['original', case]:.2f})")
            mib = one["mib"][runtime]
            cells.append("" if mib is None else f"{mib:.0f}")
        lines.append(f"| {label} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def description(libraries: list[Library]) -> str:
    """One line: what was measured, where and when."""
    hardware = report.machine("cpu")
    packages = (library.modules[0].partition(".")[0] for library in libraries if library.export)
    others = ", ".join(f"{package} {version(package)}" for package in packages)
    return f"One thread of {hardware['cpu']} with {hardware['instructions']}; {others}, {report.software_and_date()}."


def main(argv: list[str] | None = None) -> None:
    (args,) = parse_arguments((RuntimesArguments,), argv, __doc__)
    runtimes = installed(args.runtimes)
    names, libraries = ["original", *runtimes], list(dict.fromkeys(RUNTIMES[name].library for name in runtimes))
    folders = {name: Path(args.output_dir, Path(name).name.replace(" ", "_")) for name in args.models}
    for name, folder in folders.items():
        print(f"Preparing {name} ...", flush=True)
        prepare(name, libraries, folder, args)

    found: dict[str, dict] = {}
    cases = [Case(1, (seconds,)) for seconds in args.seconds]
    for name, folder in folders.items():
        settings = RuntimesSettings(
            turn_seconds=args.turn_seconds, rounds=args.rounds, folder=folder, cpu_time=args.cpu_time
        )
        results = [each for case in cases for each in take_turns(names, case, settings)]
        times = (f"{each.model} {1000 * each.seconds_min:.3g} ms" for each in results)
        print(f"{name}: {', '.join(times)}", flush=True)
        mib = {runtime: in_a_process(memory_of, runtime, settings, max(args.seconds)) for runtime in names}
        found[Path(name).name] = {"results": results, "mib": mib}

    text = f"{description(libraries)}\n\n{markdown(found, args.seconds)}"
    record = {
        name: {"mib": one["mib"], "results": [asdict(each) for each in one["results"]]} for name, one in found.items()
    }
    report.write_models(args.output_dir, args, record, text)
    print("\n" + text)


if __name__ == "__main__":
    main()
