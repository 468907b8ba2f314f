"""What a probe leaves: `probe.json`, a plot, and a table on the terminal."""

import json
from pathlib import Path

import matplotlib

from ..data.labelled import DataArguments
from ..data.sources import describe_source
from .folds import Clips
from .metrics import METRIC_NAMES
from .probing import ProbeArguments

matplotlib.use("Agg")  # no display needed
import matplotlib.pyplot as plt
from matplotlib.ticker import MaxNLocator


def report(rows: list[dict], clips: Clips, args: ProbeArguments, data_args: DataArguments) -> dict:
    """
    Writes `probe.json` and `probe.png`, and prints the table.

    Args:
        rows (`list[dict]`): The results of all models, as `probe_model` returns them.
        clips (`Clips`): What was probed.
        args (`ProbeArguments`): How, and where the files go.
        data_args (`DataArguments`): Where the clips come from.

    Returns:
        `dict`: What `probe.json` holds.
    """
    folder, source, title = Path(args.output_dir), describe_source(data_args), METRIC_NAMES[clips.metric]
    num_folds = len(rows[0]["scores"])
    scored_on = f"{num_folds} folds" if num_folds > 1 else f"the {clips.splits[-1]} clips"
    shared = {"data": source, "metric": clips.metric, "reported_on": scored_on, "pooling": args.pooling}
    record = {**shared, "results": rows}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "probe.json").write_text(json.dumps(record, indent=2), encoding="utf-8")
    plot(rows, title, f"Linear probe of {scored_on}", folder / "probe.png")
    print(f"\n{title} on {scored_on} of {source}:\n\n{format_table(rows, clips.metric)}\n")
    print(f"In {folder}: probe.json and probe.png.")
    return record


def format_table(rows: list[dict], metric: str) -> str:
    header = ["model", "layer", metric, "validation", "C", "seconds"]
    cells = [header] + [
        [
            row["model"],
            str(row["layer"]),
            f"{row['score']:.4f}" + (f" ± {row['std']:.4f}" if len(row["scores"]) > 1 else ""),
            f"{row['validation_score']:.4f}",
            ", ".join(f"{value:g}" for value in sorted(set(row["C"]))),
            f"{row['seconds']:.1f}",
        ]
        for row in rows
    ]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return "\n".join("  ".join(map(str.ljust, line, widths)).rstrip() for line in cells)


@matplotlib.rc_context({"text.parse_math": False})  # names are no formulas
def plot(rows: list[dict], metric: str, title: str, path: Path) -> None:
    """Draws the metric by layer, one line per model, or bars where each model has a single layer."""
    by_model: dict[str, list[dict]] = {row["model"]: [] for row in rows}
    for row in rows:
        if row["layer"] != "best":
            by_model[row["model"]].append(row)
    figure, axes = plt.subplots(figsize=(7, 4), layout="constrained")
    if max(map(len, by_model.values())) > 1:
        plot_layers(axes, by_model, metric)
    else:
        plot_bars(axes, [row for points in by_model.values() for row in points], metric)
    axes.set_title(title)
    axes.grid(alpha=0.3)
    figure.savefig(path, dpi=120)
    plt.close(figure)


def plot_layers(axes: plt.Axes, by_model: dict[str, list[dict]], metric: str) -> None:
    for model, points in by_model.items():
        points = sorted(points, key=lambda row: row["layer"])
        x, y, error = zip(*((row["layer"], row["score"], row["std"]) for row in points), strict=True)
        axes.errorbar(x, y, error if any(error) else None, marker="o", capsize=3, label=model)
    axes.set(xlabel="layer", ylabel=metric)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend()


def plot_bars(axes: plt.Axes, rows: list[dict], metric: str) -> None:
    y, error = zip(*((row["score"], row["std"]) for row in rows), strict=True)
    bars = axes.barh([row["model"] for row in rows], y, xerr=error if any(error) else None)
    axes.bar_label(bars, fmt="%.3f", label_type="center", color="white")
    axes.invert_yaxis()
    axes.set_xlabel(metric)
