"""Linear probes: logistic regression on a frozen model's pooled hidden states measures how much a checkpoint knows.

The clips that a probe is scored on choose nothing. The regularisation is chosen on the validation split, and the probe
then trained on train and validation; without a test split, or with folds, cross-validation within the training clips
chooses it.
"""

import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from datasets import Dataset
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.multiclass import OneVsRestClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from tqdm.auto import tqdm
from transformers import PreTrainedConfig, set_seed

from .. import HEARConfig, HEARFeatureExtractor
from ..arguments import option
from ..data.decoding import decode_audio
from .folds import Clips, Fold, make_folds
from .frozen_encoders import FrozenEncoder, model_class
from .metrics import MeanAveragePrecision

REGULARISATION = [10.0**power for power in range(-3, 3)]  # of LogisticRegression's C, the inverse of its strength
POOLING: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "mean": lambda states: states.mean(0),
    "max": lambda states: states.amax(0),
    "std": lambda states: states.std(0, correction=0),  # 0, and not NaN, for one frame
}


@dataclass
class FeatureArguments:
    """Which models read the clips, and how their states become features."""

    model_name_or_path: list[str] = option(
        help="Probe these models: checkpoints of the Hub or folders of any audio models, or `random` for an untrained "
        "HEAR of the published size."
    )
    model_revision: str = option(default="main", help="The branch, tag or commit of the checkpoints.")
    trust_remote_code: bool = option(default=False, help="Run the code that a checkpoint of the Hub comes with.")
    random_baseline: bool = option(
        default=False, help="Also probe, beside each HEAR checkpoint, the same architecture with random weights."
    )
    pooling: list[str] = option(
        default_factory=lambda: list(POOLING), help="Join these statistics over each clip's frames: mean, max, std."
    )
    min_length_seconds: float = option(
        default=0.0,
        help="Centre shorter clips in silence of this length; some models know words only with silence around.",
    )
    max_length_seconds: float = option(default=30.0, help="Crop clips to this length.")
    batch_size: int = option(default=16, help="Read so many clips at once.")
    seed: int = option(default=0, help="Seed of the folds, the random weights, and whatever is drawn of the data.")

    def __post_init__(self):
        unknown = [name for name in self.pooling if name not in POOLING]
        if unknown or not self.pooling:
            raise ValueError(f"`pooling` must be some of {list(POOLING)}, found: {unknown or 'none'}.")
        if not 0 <= self.min_length_seconds <= self.max_length_seconds or self.max_length_seconds <= 0:
            raise ValueError(
                "`max_length_seconds` must be above 0, and `min_length_seconds` between 0 and it, found: "
                f"{self.max_length_seconds} and {self.min_length_seconds}."
            )
        if self.batch_size < 1:
            raise ValueError(f"`batch_size` must be above 0, found: {self.batch_size}.")


@dataclass
class ProbeArguments(FeatureArguments):
    """Which models to probe, on which of their layers, and how to report it."""

    layer: list[str] = option(
        default_factory=lambda: ["-1"],
        help="Probe these layers: indices into the hidden states, or `all`, and the best of all on the validation "
        "clips.",
    )
    fold_column: str | None = option(
        default=None,
        help="Score on each value of this column of the training clips in turn, for example on each speaker; a test "
        "split is left out.",
    )
    num_folds: int | None = option(
        default=None, help="Score on so many random folds in turn, stratified by label; a test split is left out."
    )
    output_dir: str = option(default="runs/probe", help="Where probe.json and probe.png go.")

    def __post_init__(self):
        super().__post_init__()
        if self.fold_column is not None and self.num_folds is not None:
            raise ValueError("Folds must come from one source, found `fold_column` and `num_folds`. Give one.")
        if self.num_folds is not None and self.num_folds < 2:
            raise ValueError(f"`num_folds` must be at least 2, found: {self.num_folds}.")


class Result(NamedTuple):
    """What a layer's probes gave, with one entry per fold."""

    scores: list[float]
    validation_scores: list[float]
    regularisation: list[float]


def load_encoders(args: FeatureArguments) -> Iterator[tuple[str, FrozenEncoder]]:
    """Loads one model at a time, with its name in the table."""
    for name in args.model_name_or_path:
        if name == "random":
            yield "random HEAR", random_encoder(HEARConfig(), HEARFeatureExtractor(), args.seed)
            continue
        source: dict[str, Any] = {"revision": args.model_revision, "trust_remote_code": args.trust_remote_code}
        encoder = FrozenEncoder.from_pretrained(name, **source)
        yield name, encoder
        config = encoder.model.config
        if args.random_baseline and config.model_type in ("hear", "hear_quantizer"):
            yield f"{name}, random weights", random_encoder(config, encoder.family.feature_extractor, args.seed)


def random_encoder(config: PreTrainedConfig, feature_extractor: Any, seed: int) -> FrozenEncoder:
    set_seed(seed)
    return FrozenEncoder(model_class(config).from_config(config), feature_extractor)


def layers_to_probe(wanted: list[str], num_hidden_states: int) -> list[int]:
    """Counts layers from 0, in the order wanted and each of them once."""
    if wanted == ["all"]:
        return list(range(num_hidden_states))
    allowed = range(-num_hidden_states, num_hidden_states)
    wrong = [layer for layer in wanted if not layer.lstrip("-").isdigit() or int(layer) not in allowed]
    if wrong:
        raise ValueError(f"`layer` must be 'all' or from {allowed[0]} to {allowed[-1]} here, found: {wrong}.")
    return list(dict.fromkeys(int(layer) % num_hidden_states for layer in wanted))


def extract_features(
    name: str, encoder: FrozenEncoder, audio: Dataset, layers: list[int], args: FeatureArguments
) -> dict[int, np.ndarray]:
    """Pools the states of each layer to `(num_clips, width)`."""
    rows: dict[int, list[np.ndarray]] = {layer: [] for layer in layers}
    min_samples = int(args.min_length_seconds * encoder.sampling_rate)
    max_samples = max(1, int(args.max_length_seconds * encoder.sampling_rate))
    with tqdm(total=len(audio), desc=f"Reading with {name}", unit="clip") as progress:
        for start in range(0, len(audio), args.batch_size):
            entries = audio[start : start + args.batch_size]["audio"]
            waveforms = [decode_audio(entry, encoder.sampling_rate)[:max_samples] for entry in entries]
            waveforms = [centred(waveform, min_samples) for waveform in waveforms]
            for states in encoder.hidden_states(waveforms, encoder.sampling_rate, layers):
                for layer, frames in zip(layers, states, strict=True):
                    rows[layer].append(torch.cat([POOLING[pool](frames) for pool in args.pooling]).cpu().numpy())
            progress.update(len(entries))
    return {layer: np.stack(features) for layer, features in rows.items()}


def centred(waveform: np.ndarray, min_samples: int) -> np.ndarray:
    """Puts silence before and after a shorter clip."""
    missing = max(min_samples - len(waveform), 0)
    return np.pad(waveform, (missing // 2, missing - missing // 2))


def mean_average_precision(probe, features: np.ndarray, labels: np.ndarray) -> float:
    scores = probe.decision_function(features)
    return MeanAveragePrecision().compute(predictions=scores, references=labels)["mean_average_precision"]


def probe_layer(features: np.ndarray, labels: np.ndarray, folds: list[Fold]) -> Result:
    """Chooses C for each fold within its training clips, trains on all of them, and scores the others."""
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
    """
    Probes the wanted layers of a model.

    Returns:
        `list[dict]`: A row of results per layer; with `all` layers also one of the layer that was best on the
        validation clips, fold by fold.
    """
    layers = layers_to_probe(args.layer, encoder.num_hidden_states)
    start = time.perf_counter()
    features = extract_features(name, encoder, clips.audio, layers, args)
    shared = {"model": name, "num_clips": len(clips.audio), "seconds": round(time.perf_counter() - start, 2)}
    folds = make_folds(clips, args.num_folds, args.seed)
    results = {
        layer: probe_layer(features[layer], clips.labels, folds)
        for layer in tqdm(layers, desc="Fitting probes", unit="layer")
    }
    rows = [shared | summarise(result, layer) for layer, result in results.items()]
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
