"""Time and memory of HEAR in several runtimes beside the original, in one run on one thread. Prints a Markdown table.

    taskset -c 0 python benchmarks/runtimes.py    # exports two models, some minutes, then times them, some four

Ratios refer to the original in the published size, which takes turns with the others; each runs in a process of its
own. Memory is what a process takes to load a model and to read the longest clip, above its libraries. Exported files
stay in `output_dir`, and a further run reads them again. Needs `pip install "hear_hf[openvino,demo]"`.
"""

from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import cache, partial
from importlib.metadata import version
from multiprocessing import get_context
from pathlib import Path

import torch
from torch import nn

import report
from contestants import CLASSIFIERS, NUM_LABELS, Contestant, extraction
from harness import Case, Memory, Result, Settings, compete
from hear_hf import HEARConfig, HEARFeatureExtractor, HEARForAudioClassification
from hear_hf.arguments import option, parse_arguments
from hear_hf.deployment.onnx_dtypes import calibration_files
from hear_hf.deployment.onnx_export import export_file, exported_files
from hear_hf.deployment.onnx_graph import to_onnx
from hear_hf.deployment.onnx_session import Runner, model_inputs, runner
from hear_hf.deployment.openvino_export import export_ir
from hear_hf.deployment.openvino_session import exported_irs, ir_runner
from hear_hf.exports import load_classifier

PUBLISHED = "published size"  # with random weights, which are as fast as others


@dataclass
class RuntimesArguments:
    """What to time, and how often."""

    models: list[str] = option(
        default_factory=lambda: [PUBLISHED, "checkpoints/hear-tiny"],
        help=f"Classifiers to time: folders, or `{PUBLISHED}` with random weights.",
    )
    runtimes: list[str] | None = option(
        default=None, help="Time these alone, by their names in `RUNTIMES`; all by default."
    )
    calibration_data: str = option(default="examples/sounds", help="Measure OpenVINO's integers on this folder.")
    seconds: list[float] = option(default_factory=lambda: [1, 10], help="Lengths of the clips.")
    rounds: int = option(default=3, help="Turns of each runtime for each length.")
    turn_seconds: float = option(default=0.7, help="Shortest turn, which holds at least one run.")
    cpu_time: bool = option(
        default=False, help="Count the processor's time alone, on a machine that others use at the same time."
    )
    output_dir: str = option(default="runs/runtimes", help="Where exported files and results go.")


@dataclass
class Ready(Contestant):
    """A contestant whose type is chosen already."""

    def to(self, device: str, dtype: torch.dtype) -> "Ready":
        return self


class Exported(nn.Module):
    """An exported file in the place of a model; `open_file` is given the number of samples of a clip."""

    def __init__(self, open_file: Callable[[int], Runner]):
        super().__init__()
        self.open_file = cache(open_file)

    def forward(self, input_values: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        inputs = model_inputs(input_values.numpy(), attention_mask.numpy())
        return torch.from_numpy(self.open_file(input_values.shape[1])(inputs))


def pytorch(dtype: torch.dtype, folder: Path) -> nn.Module:
    return HEARForAudioClassification.from_pretrained(folder / "model", dtype=dtype)


def onnx(dtype: str, folder: Path) -> nn.Module:
    run = runner(exported_files(folder)[dtype])
    return Exported(lambda num_samples: run)


def openvino(dtype: str, folder: Path) -> nn.Module:
    run = ir_runner(exported_irs(folder)[dtype])
    return Exported(lambda num_samples: run)


def openvino_of_one_length(dtype: str, folder: Path) -> nn.Module:
    return Exported(partial(ir_runner, exported_irs(folder)[dtype]))


# By name: what it is called in the table, and what loads it from a folder that `prepare` filled.
RUNTIMES: dict[str, tuple[str, Callable[[Path], nn.Module]]] = {
    "pytorch": ("PyTorch float32", partial(pytorch, torch.float32)),
    "pytorch_bfloat16": ("PyTorch bfloat16", partial(pytorch, torch.bfloat16)),
    "onnx": ("ONNX Runtime float32", partial(onnx, "float32")),
    "onnx_int8": ("ONNX Runtime int8", partial(onnx, "int8")),
    "openvino": ("OpenVINO float32", partial(openvino, "float32")),
    "openvino_default": ("OpenVINO float16 (bfloat16 on this CPU)", partial(openvino, "float16")),
    "openvino_int8": ("OpenVINO int8", partial(openvino, "int8")),
    "openvino_fixed": ("OpenVINO float32, one length", partial(openvino_of_one_length, "float32")),
    "openvino_default_fixed": ("OpenVINO float16, one length", partial(openvino_of_one_length, "float16")),
    "openvino_int8_fixed": ("OpenVINO int8, one length", partial(openvino_of_one_length, "int8")),
}


def contestant(load: Callable[[Path], nn.Module], folder: Path) -> Contestant:
    torch.set_num_threads(1)  # before a file is opened, which is then run on as many
    return Ready(load(folder), extraction(HEARFeatureExtractor()))


@dataclass(frozen=True)
class RuntimesSettings(Settings):
    """What holds for one model."""

    folder: Path = Path()

    @property
    def contestants(self) -> dict:
        runtimes = {name: (label, partial(contestant, load, self.folder)) for name, (label, load) in RUNTIMES.items()}
        return {"original": CLASSIFIERS["original"]} | runtimes


def prepare(name: str, calibration_data: str, folder: Path) -> None:
    """Saves a model and exports it into a folder, unless that was done."""
    if not (folder / "model").exists():
        if name == PUBLISHED:
            torch.manual_seed(0)
            model = HEARForAudioClassification(HEARConfig(num_labels=NUM_LABELS))
        else:
            model = load_classifier(name)
        model.save_pretrained(folder / "model")
    model = load_classifier(str(folder / "model"))
    missing = {"float32", "int8"} - {*exported_files(folder)}, {"float32", "float16", "int8"} - {*exported_irs(folder)}
    if any(missing):
        graph, clips = to_onnx(model), calibration_files(calibration_data)
        for dtype in missing[0]:
            export_file(graph, dtype, model, folder)
        for dtype in missing[1]:
            export_ir(graph, dtype, model, folder, clips)


def memory_of(name: str, settings: RuntimesSettings, seconds: float) -> float | None:
    """MiB to load a model and to read a clip, in a process that loads nothing else; `None` where it cannot be told."""
    import onnxruntime  # noqa: F401
    import openvino  # noqa: F401

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
                cells.append(f"{value:.3g} ({value / by_case['original', case]:.3f})")
            mib = one["mib"][runtime]
            cells.append("" if mib is None else f"{mib:.0f}")
        lines.append(f"| {label} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def description() -> str:
    """One line: what was measured, where and when."""
    hardware = report.machine("cpu")
    others = ", ".join(f"{name} {version(name)}" for name in ("onnxruntime", "openvino"))
    return f"One thread of {hardware['cpu']} with {hardware['instructions']}; {others}, {report.software_and_date()}."


def main(argv: list[str] | None = None) -> None:
    (args,) = parse_arguments((RuntimesArguments,), argv, __doc__)
    names = ["original", *(args.runtimes or RUNTIMES)]
    folders = {name: Path(args.output_dir, Path(name).name.replace(" ", "_")) for name in args.models}
    for name, folder in folders.items():
        print(f"Exporting {name} ...", flush=True)
        prepare(name, args.calibration_data, folder)

    found: dict[str, dict] = {}
    cases = [Case(1, (seconds,)) for seconds in args.seconds]
    for folder in folders.values():
        settings = RuntimesSettings(
            turn_seconds=args.turn_seconds, rounds=args.rounds, folder=folder, cpu_time=args.cpu_time
        )
        results: list[Result] = [result for of_case in compete(names, cases, settings) for result in of_case]
        mib = {runtime: in_a_process(memory_of, runtime, settings, max(args.seconds)) for runtime in names}
        found[folder.name] = {"results": results, "mib": mib}

    text = f"{description()}\n\n{markdown(found, args.seconds)}"
    record = {
        name: {"mib": one["mib"], "results": [asdict(each) for each in one["results"]]} for name, one in found.items()
    }
    report.write_models(args.output_dir, args, record, text)
    print("\n" + text)


if __name__ == "__main__":
    main()
