"""Exported files beside PyTorch on labelled audio: what the smaller types lose, and gain."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from datasets import Dataset
from tqdm.auto import tqdm
from transformers import AutoFeatureExtractor, EvalPrediction, PreTrainedModel

from ..arguments import option
from ..data.labelled import DataArguments, label_feature, load_labelled_audio
from ..data.preparation import prepare_clips
from ..evaluation.metrics import multi_label_metrics, single_label_metrics
from .onnx_export import FILES, load, model_inputs, open_session


@dataclass
class ScoringArguments:
    """What to score."""

    model_name_or_path: str = option(help="A HEAR classifier: a folder, or a repository of the Hub.")
    onnx_dir: str = option(help="The folder into which export_onnx.py wrote it.")
    threads: int = option(default=1, help="CPU threads.")


@dataclass
class Contestant:
    """A way to compute logits (1, num_labels) from a clip (1, num_samples), and how large it is."""

    name: str
    logits: Callable[[np.ndarray], np.ndarray]
    mib: float


def pytorch_contestant(model: PreTrainedModel, dtype: torch.dtype) -> Contestant:
    @torch.no_grad()
    def logits(clip: np.ndarray) -> np.ndarray:
        return model(torch.from_numpy(clip)).logits.float().numpy()

    model = model.to(dtype)
    size = sum(parameter.nbytes for parameter in model.parameters()) / 2**20
    return Contestant(f"PyTorch {str(dtype).removeprefix('torch.')}", logits, size)


def onnx_contestant(dtype: str, path: Path) -> Contestant:
    session = open_session(path)
    return Contestant(
        f"ONNX {dtype}", lambda clip: session.run(None, model_inputs(clip))[0], path.stat().st_size / 2**20
    )


def contestants(args: ScoringArguments) -> list[Contestant]:
    """PyTorch in float32, which the others are compared with, and in bfloat16, and each exported file."""
    exported = {dtype: Path(args.onnx_dir, file) for dtype, file in FILES.items()}
    exported = {dtype: path for dtype, path in exported.items() if path.is_file()}
    if not exported:
        raise ValueError(f"`onnx_dir` must hold files of export_onnx.py, found none in {args.onnx_dir}. Export first.")
    return [
        *(pytorch_contestant(load(args.model_name_or_path), dtype) for dtype in (torch.float32, torch.bfloat16)),
        *(onnx_contestant(dtype, path) for dtype, path in exported.items()),
    ]


def measure(contestant: Contestant, clips: Dataset) -> tuple[EvalPrediction, float]:
    """Logits and labels of all clips, and milliseconds of computing for each."""
    logits, labels, seconds = [], [], 0.0
    for clip in tqdm(clips, desc=contestant.name):
        waveform = np.asarray(clip["input_values"], dtype=np.float32)[None]
        start = time.perf_counter()
        logits.append(contestant.logits(waveform)[0])
        seconds += time.perf_counter() - start
        labels.append(clip["labels"])
    return EvalPrediction(np.stack(logits), np.stack(labels)), 1000 * seconds / len(labels)


def score(args: ScoringArguments, data_args: DataArguments) -> list[dict[str, float | str]]:
    """A row for each contestant: metrics, share of clips that it labels as PyTorch does in float32, cost."""
    dataset = load_labelled_audio(data_args)
    clips = dataset["test" if "test" in dataset else "validation"]
    names, multi_label = label_feature(clips)
    config = load(args.model_name_or_path).config
    if [config.id2label[i] for i in range(config.num_labels)] != names.names:
        raise ValueError(
            f"The model's labels must be those of the clips, found: {config.num_labels} and {names.num_classes}, "
            f"the first {config.id2label[0]!r} and {names.names[0]!r}. Take the data that it was trained on."
        )
    sampling_rate = AutoFeatureExtractor.from_pretrained(args.model_name_or_path).sampling_rate
    clips = prepare_clips(clips, sampling_rate)
    metrics = multi_label_metrics if multi_label else single_label_metrics

    rows, reference = [], None
    for contestant in contestants(args):
        prediction, milliseconds = measure(contestant, clips)
        chosen = prediction.predictions > 0 if multi_label else prediction.predictions.argmax(-1)
        reference = chosen if reference is None else reference
        values = {name: 100 * value for name, value in metrics(prediction).items()}
        cost = {"as float32": 100 * np.mean(chosen == reference), "ms a clip": milliseconds}
        rows.append({"": contestant.name, "MiB": contestant.mib} | values | cost)
    return rows
