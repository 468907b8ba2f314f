"""Linear probes: logistic regression on a frozen model's pooled hidden states tells how much a checkpoint knows.

What is reported is never used to choose: the regularisation is picked on the validation split and the probe then
trained on train and validation; without a test split, or with folds, by cross-validation within the training clips.
"""

import json
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import matplotlib
import numpy as np
import torch
from datasets import Dataset, DatasetDict, concatenate_datasets
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, GroupKFold, KFold, LeaveOneGroupOut, StratifiedKFold
from sklearn.multiclass import OneVsRestClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from tqdm.auto import tqdm
from transformers import set_seed

from .. import HEARConfig, HEARFeatureExtractor
from ..arguments import option
from ..data.decoding import decode_audio
from ..data.labelled import DataArguments, label_feature
from ..data.sources import describe_source
from .frozen_encoders import FrozenEncoder, model_class
from .metrics import METRIC_NAMES, MeanAveragePrecision

matplotlib.use("Agg")  # no display needed
import matplotlib.pyplot as plt

REGULARISATION = [10.0**power for power in range(-3, 3)]  # of LogisticRegression's C, the inverse of its strength
NUM_TUNING_FOLDS = 3
POOLING: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "mean": lambda states: states.mean(0),
    "max": lambda states: states.amax(0),
    "std": lambda states: states.std(0, correction=0),  # 0, and not NaN, for one frame
}


@dataclass
class ProbeArguments:
    """Which models to probe, on which of their layers, and how to report it."""

    model_name_or_path: list[str] = option(
        help="Checkpoints of the Hub or folders, any audio models; 'random' is HEAR of the published size, untrained."
    )
    model_revision: str = option(default="main", help="The branch, tag or commit of the checkpoints.")
    trust_remote_code: bool = option(default=False, help="Run the code that a checkpoint of the Hub brings along.")
    random_baseline: bool = option(
        default=False, help="Also probe, beside each HEAR checkpoint, the same architecture with random weights."
    )
    layer: list[str] = option(
        default_factory=lambda: ["-1"],
        help="Layers to probe: indices into the hidden states, or 'all', and then the best on the validation clips.",
    )
    pooling: list[str] = option(
        default_factory=lambda: list(POOLING), help="Statistics over each clip's frames to join: mean, max, std."
    )
    fold_column: str | None = option(
        default=None,
        help="Report on each value of this column of the training clips in turn; a test split is left out.",
    )
    num_folds: int | None = option(default=None, help="The same with so many random folds, stratified by label.")
    max_length_seconds: float = option(default=30.0, help="Clips are cropped to this length.")
    batch_size: int = option(default=16, help="Clips read at once.")
    seed: int = option(default=0, help="Decides the folds, the random weights, and whatever is drawn of the data.")
    output_dir: str = option(default="runs/probe", help="Where probe.json and probe.png go.")

    def __post_init__(self):
        unknown = [name for name in self.pooling if name not in POOLING]
        if unknown or not self.pooling:
            raise ValueError(f"`pooling` must be some of {list(POOLING)}, found: {unknown or 'none'}.")
        if self.fold_column is not None and self.num_folds is not None:
            raise ValueError("Folds must come from one source, found `fold_column` and `num_folds`. Give one.")
        if self.num_folds is not None and self.num_folds < 2:
            raise ValueError(f"`num_folds` must be at least 2, found: {self.num_folds}.")
        if self.max_length_seconds <= 0 or self.batch_size < 1:
            raise ValueError(
                "`max_length_seconds` and `batch_size` must be above 0, found: "
                f"{self.max_length_seconds} and {self.batch_size}."
            )


class Clips(NamedTuple):
    """Clips of all splits: `audio`, and one entry a clip of the rest."""

    audio: Dataset
    splits: np.ndarray  # names
    labels: np.ndarray  # class indices (num_clips,), or 0 and 1 (num_clips, num_labels)
    groups: np.ndarray | None  # values of `fold_column`


class Fold(NamedTuple):
    """Clips to train on, how these are divided to choose by (as positions in `train`), and clips to report on."""

    train: np.ndarray
    tuning: list[tuple[np.ndarray, np.ndarray]]
    test: np.ndarray


class Result(NamedTuple):
    """Of one layer, an entry a fold each."""

    scores: list[float]
    validation_scores: list[float]
    regularisation: list[float]


def gather_clips(dataset: DatasetDict, args: ProbeArguments) -> Clips:
    has_folds = args.fold_column is not None or args.num_folds is not None
    names = [split for split in dataset if not (has_folds and split == "test")]
    audio = concatenate_datasets([dataset[split] for split in names])
    labels, (classes, multi_label) = audio["label"][:], label_feature(audio)
    if multi_label:
        indicators = np.zeros((len(labels), classes.num_classes), dtype=int)
        for row, present in zip(indicators, labels, strict=True):
            row[present] = 1
        labels = indicators
    groups = None if args.fold_column is None else np.array(audio[args.fold_column][:])
    if groups is not None and len(set(groups)) < 2:
        raise ValueError(f"The column {args.fold_column!r} must have at least two values, found: {set(groups)}.")
    splits = np.repeat(names, [len(dataset[split]) for split in names])
    return Clips(audio.select_columns("audio"), splits, np.asarray(labels), groups)


def make_folds(clips: Clips, num_folds: int | None, seed: int) -> list[Fold]:
    """The clips to train, to choose and to report on: one division as the splits have it, or one a fold."""
    if clips.groups is not None:
        outer = LeaveOneGroupOut().split(clips.labels, groups=clips.groups)
    elif num_folds is not None:
        outer = divide(clips.labels, num_folds, seed)
    elif "test" in clips.splits:
        train, test = np.flatnonzero(clips.splits != "test"), np.flatnonzero(clips.splits == "test")
        splits = clips.splits[train]
        return [Fold(train, [(np.flatnonzero(splits == "train"), np.flatnonzero(splits == "validation"))], test)]
    else:
        outer = [(np.flatnonzero(clips.splits == "train"), np.flatnonzero(clips.splits == "validation"))]
    return [Fold(train, tuning_divisions(clips, train, seed), test) for train, test in outer]


def tuning_divisions(clips: Clips, train: np.ndarray, seed: int) -> list[tuple[np.ndarray, np.ndarray]]:
    groups = None if clips.groups is None else clips.groups[train]
    if groups is None or len(set(groups)) < 2:
        return divide(clips.labels[train], NUM_TUNING_FOLDS, seed)
    return list(GroupKFold(min(NUM_TUNING_FOLDS, len(set(groups)))).split(train, groups=groups))


def divide(labels: np.ndarray, num_folds: int, seed: int) -> list[tuple[np.ndarray, np.ndarray]]:
    if len(labels) < num_folds:
        raise ValueError(f"There must be a clip a fold, found: {len(labels)} clips and {num_folds} folds. Add clips.")
    can_stratify = labels.ndim == 1 and np.bincount(labels).max() >= num_folds
    divider = StratifiedKFold if can_stratify else KFold
    return list(divider(num_folds, shuffle=True, random_state=seed).split(labels, labels))


def load_encoders(args: ProbeArguments) -> Iterator[tuple[str, FrozenEncoder]]:
    """One at a time, with its name in the table."""
    for name in args.model_name_or_path:
        if name == "random":
            yield "random HEAR", random_encoder(HEARConfig(), HEARFeatureExtractor(), args.seed)
            continue
        encoder = FrozenEncoder(name, revision=args.model_revision, trust_remote_code=args.trust_remote_code)
        yield name, encoder
        config = encoder.model.config
        if args.random_baseline and config.model_type in ("hear", "hear_quantizer"):
            yield f"{name}, random weights", random_encoder(config, encoder.family.feature_extractor, args.seed)


def random_encoder(config, feature_extractor, seed: int) -> FrozenEncoder:
    set_seed(seed)
    return FrozenEncoder.from_model(model_class(config).from_config(config), feature_extractor)


def layers_to_probe(wanted: list[str], num_hidden_states: int) -> list[int]:
    """Indices from 0, in the order wanted."""
    if wanted == ["all"]:
        return list(range(num_hidden_states))
    allowed = range(-num_hidden_states, num_hidden_states)
    wrong = [layer for layer in wanted if not layer.lstrip("-").isdigit() or int(layer) not in allowed]
    if wrong:
        raise ValueError(f"`layer` must be 'all' or from {allowed[0]} to {allowed[-1]} here, found: {wrong}.")
    return list(dict.fromkeys(int(layer) % num_hidden_states for layer in wanted))


def extract_features(
    name: str, encoder: FrozenEncoder, audio: Dataset, layers: list[int], args: ProbeArguments
) -> dict[int, np.ndarray]:
    """Pooled states `(num_clips, width)` of each layer."""
    rows = {layer: [] for layer in layers}
    max_samples = max(1, int(args.max_length_seconds * encoder.sampling_rate))
    with tqdm(total=len(audio), desc=f"Reading with {name}", unit="clip") as progress:
        for start in range(0, len(audio), args.batch_size):
            entries = audio[start : start + args.batch_size]["audio"]
            waveforms = [decode_audio(entry, encoder.sampling_rate)[:max_samples] for entry in entries]
            for states in encoder.hidden_states(waveforms, encoder.sampling_rate, layers):
                for layer, frames in zip(layers, states, strict=True):
                    rows[layer].append(torch.cat([POOLING[pool](frames) for pool in args.pooling]).cpu().numpy())
            progress.update(len(entries))
    return {layer: np.stack(features) for layer, features in rows.items()}


def mean_average_precision(probe, features: np.ndarray, labels: np.ndarray) -> float:
    scores = probe.decision_function(features)
    return MeanAveragePrecision().compute(predictions=scores, references=labels)["mean_average_precision"]


def probe_layer(features: np.ndarray, labels: np.ndarray, folds: list[Fold]) -> Result:
    """For each fold chooses C within the training clips, trains on all of them, and scores the others."""
    head = LogisticRegression(max_iter=1000)
    if labels.ndim == 2:
        probe, parameter = OneVsRestClassifier(head), "onevsrestclassifier__estimator__C"
    else:
        probe, parameter = head, "logisticregression__C"
    result = Result([], [], [])
    for fold in folds:
        search = GridSearchCV(
            make_pipeline(StandardScaler(), probe),
            {parameter: REGULARISATION},
            scoring=mean_average_precision if labels.ndim == 2 else "accuracy",
            cv=fold.tuning,
            error_score="raise",
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # then it is but regularised a little more
            search.fit(features[fold.train], labels[fold.train])
        result.scores.append(float(search.score(features[fold.test], labels[fold.test])))
        result.validation_scores.append(float(search.best_score_))
        result.regularisation.append(search.best_params_[parameter])
    return result


def probe_model(name: str, encoder: FrozenEncoder, clips: Clips, args: ProbeArguments) -> list[dict]:
    """A row a layer; with all layers also one of that which was best on the validation clips, fold by fold."""
    layers = layers_to_probe(args.layer, encoder.num_hidden_states)
    start = time.perf_counter()
    features = extract_features(name, encoder, clips.audio, layers, args)
    seconds = time.perf_counter() - start
    folds = make_folds(clips, args.num_folds, args.seed)

    rows, results = [], {}
    shared = {"model": name, "num_clips": len(clips.audio), "seconds": round(seconds, 2)}
    for layer in tqdm(layers, desc="Fitting probes", unit="layer"):
        results[layer] = probe_layer(features[layer], clips.labels, folds)
        rows.append(shared | summarise(results[layer], layer))
    if args.layer == ["all"]:
        chosen = [max(layers, key=lambda layer: results[layer].validation_scores[i]) for i in range(len(folds))]
        best = Result(*([results[layer][field][i] for i, layer in enumerate(chosen)] for field in range(3)))
        rows.append(shared | summarise(best, "best") | {"chosen_layers": chosen})
    return rows


def summarise(result: Result, layer: int | str) -> dict:
    return {
        "layer": layer,
        "score": float(np.mean(result.scores)),
        "std": float(np.std(result.scores)),
        "validation_score": float(np.mean(result.validation_scores)),
        "C": result.regularisation,
        "scores": result.scores,
    }


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


def plot(rows: list[dict], metric: str, title: str, path: Path) -> None:
    """The metric by layer, a line a model, or bars where each model has but one layer."""
    models = list(dict.fromkeys(row["model"] for row in rows))
    by_model = {model: [r for r in rows if r["model"] == model and r["layer"] != "best"] for model in models}
    figure, axes = plt.subplots(figsize=(7, 4), layout="constrained")
    if max(map(len, by_model.values())) > 1:
        for model, points in by_model.items():
            points = sorted(points, key=lambda row: row["layer"])
            x, y, error = zip(*((row["layer"], row["score"], row["std"]) for row in points), strict=True)
            axes.errorbar(x, y, error if any(error) else None, marker="o", capsize=3, label=model)
        axes.set_xlabel("layer")
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.legend()
    else:
        y, error = zip(*((row["score"], row["std"]) for row in rows), strict=True)
        bars = axes.barh(models, y, xerr=error if any(error) else None)
        axes.bar_label(bars, fmt="%.3f", label_type="center", color="white")
        axes.invert_yaxis()
    (axes.set_ylabel if axes.get_xlabel() else axes.set_xlabel)(metric)
    axes.set_title(title)
    axes.grid(alpha=0.3)
    figure.savefig(path, dpi=120)
    plt.close(figure)


def report(rows: list[dict], metric: str, reported_on: str, args: ProbeArguments, data_args: DataArguments) -> dict:
    """Writes `probe.json` and `probe.png`, and prints the table."""
    folder, source = Path(args.output_dir), describe_source(data_args)
    folder.mkdir(parents=True, exist_ok=True)
    record = {"data": source, "metric": metric, "reported_on": reported_on, "pooling": args.pooling, "results": rows}
    (folder / "probe.json").write_text(json.dumps(record, indent=2), encoding="utf-8")
    title = METRIC_NAMES[metric]
    plot(rows, title, f"Linear probe of {reported_on}", folder / "probe.png")
    print(f"\n{title} on {reported_on} of {source}:\n\n{format_table(rows, metric)}\n")
    print(f"In {folder}: probe.json and probe.png.")
    return record
