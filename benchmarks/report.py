"""What a benchmark leaves behind: results.json, results.md and results.png."""

import json
import os
import platform
from collections.abc import Callable
from dataclasses import asdict
from datetime import date
from pathlib import Path
from typing import Any

import matplotlib
import torch
import transformers

import hear_hf
from harness import Result, Settings

matplotlib.use("Agg")  # no window is opened; must precede pyplot
import matplotlib.pyplot as plt


def machine(device: str) -> dict[str, str | int]:
    """What the numbers depend on."""
    found = {
        "cpu": cpu_name(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "system": platform.system(),
    }
    return found | ({"gpu": torch.cuda.get_device_name()} if device == "cuda" else {})


def cpu_name() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def versions() -> dict[str, str]:
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "hear_hf": hear_hf.__version__,
    }


def software_and_date() -> str:
    software = versions()
    return (
        f"PyTorch {software['torch']}, Transformers {software['transformers']}, hear_hf {software['hear_hf']}, "
        f"{date.today().isoformat()}"
    )


def write_models(folder: str | Path, settings: Any, models: dict[str, dict], text: str) -> None:
    """Leaves results.json and results.md of models side by side; `settings` is a dataclass."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    record = {"date": date.today().isoformat(), "versions": versions(), "settings": asdict(settings), "models": models}
    (folder / "results.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    (folder / "results.md").write_text(text, encoding="utf-8")


def description(settings: Settings) -> str:
    """One line: what was measured, where and when."""
    hardware = machine(settings.device)
    place = hardware.get("gpu") or f"{hardware['cpu']} with {hardware['instructions']}"
    compiled = ", compiled" if settings.compile else ""
    return f"{settings.mode.capitalize()} in {settings.dtype}{compiled} on {place}; {software_and_date()}."


def table(results: list[Result], threads: int, cell: Callable[[Result, Result], str]) -> str:
    """Models by cases in Markdown; `cell` reads a result and that of the first model for the same case."""
    results = [result for result in results if result.threads == threads]
    cases = list(dict.fromkeys(result.case for result in results))
    by_model = {}
    for result in results:
        by_model.setdefault(result.model, {})[result.case] = result
    reference = by_model[results[0].model]
    lines = ["| model | parameters | " + " | ".join(cases) + " |", "|---|" + "---|" * (len(cases) + 1)]
    for row in by_model.values():
        first = row[cases[0]]
        cells = [cell(row[case], reference[case]) for case in cases]
        lines.append(f"| {first.label} | {first.num_parameters / 1e6:.1f} M | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def with_ratio(value: Callable[[Result], float]) -> Callable[[Result, Result], str]:
    return lambda result, reference: f"{value(result):.3g} ({value(result) / value(reference):.2f})"


def known(value: float | None) -> str:
    return "" if value is None else f"{value:.3g}"


TABLES = {
    "Seconds, from waveforms to the end (ratio to the first model)": with_ratio(lambda r: r.seconds_min),
    "Seconds without feature extraction (ratio)": with_ratio(lambda r: r.forward_seconds_min),
    "Clips a second, without feature extraction": lambda r, _: f"{r.batch_size / r.forward_seconds_min:.4g}",
    "Peak memory above the loaded model, MiB": lambda r, _: known(r.peak_mib),
    "GFLOP counted for one clip, 2 for each multiply-add": lambda r, _: known(r.gflops),
}


def markdown(results: list[Result], settings: Settings) -> str:
    parts = [
        description(settings),
        f"Fastest run of at most {settings.rounds} rounds, in which the models take turns.",
    ]
    for threads in dict.fromkeys(result.threads for result in results):
        for title, cell in TABLES.items():
            if any(cell(result, result) for result in results):
                parts += [f"## {title}; CPU threads: {threads}", table(results, threads, cell)]
    return "\n\n".join(parts) + "\n"


def plot(results: list[Result], settings: Settings, path: Path) -> None:
    """Seconds of computing for a second of audio, a panel for each number of threads."""
    counts = list(dict.fromkeys(result.threads for result in results))
    figure, panels = plt.subplots(1, len(counts), figsize=(8 * len(counts), 4.5), squeeze=False, layout="constrained")
    for threads, axes in zip(counts, panels[0], strict=True):
        for name, label in dict.fromkeys((result.model, result.label) for result in results):
            chosen = [result for result in results if (result.model, result.threads) == (name, threads)]
            rates = [result.seconds_min / result.audio_seconds for result in chosen]
            axes.plot([result.case for result in chosen], rates, "o", label=label)
        axes.set(yscale="log", ylabel="seconds for each second of audio", title=f"CPU threads: {threads}")
        axes.grid(axis="y", which="both", alpha=0.3)
    panels[0][-1].legend(loc="center left", bbox_to_anchor=(1, 0.5))
    figure.suptitle(description(settings), fontsize=8)
    figure.savefig(path, dpi=120)
    plt.close(figure)


def write(results: list[Result], settings: Settings, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    record = {
        "date": date.today().isoformat(),
        "machine": machine(settings.device),
        "versions": versions(),
        "settings": asdict(settings) | {"efficientat": settings.efficientat and settings.efficientat.name},
        "results": [asdict(result) for result in results],
    }
    (folder / "results.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    (folder / "results.md").write_text(markdown(results, settings), encoding="utf-8")
    plot(results, settings, folder / "results.png")
