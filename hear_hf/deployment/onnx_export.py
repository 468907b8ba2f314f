"""Export of a HEAR classifier to ONNX files: each is compared with PyTorch before it is put in place."""

import json
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
import torch
from onnx import helper
from transformers import AutoConfig

import hear_hf

from ..arguments import option
from ..events import DEFAULT_THRESHOLD
from ..loading import classifies_frames
from ..modeling_hear import HEARForAudioClassification, HEARForAudioFrameClassification
from .onnx_dtypes import DTYPES, CalibrationClips, write_graph
from .onnx_graph import has_frames
from .onnx_session import largest_difference, milliseconds, model_inputs, open_session, ragged_batch

FILES = {"float32": "model.onnx", "float16": "model_float16.onnx", "int8": "model_int8.onnx"}
# Largest difference of a logit from PyTorch's, in the units of `largest_difference`.
TOLERANCES = {"float32": 1e-3, "float16": 2e-2, "int8": 0.25}
TIMED_SECONDS = 10


@dataclass
class ExportArguments:
    """What to write."""

    dtype: list[str] = option(
        default_factory=lambda: ["float32"], metadata={"choices": DTYPES}, help="Write a file in each of these types."
    )
    calibration_data: str | None = option(
        default=None, help="Measure the ranges of int8 on the audio files in this folder, once and for all."
    )
    threads: int | None = option(default=None, help="Check and time with this many CPU threads.")

    def __post_init__(self):
        if self.calibration_data and "int8" not in self.dtype:
            raise ValueError("--calibration_data is for --dtype int8, found without it: leave it out or add int8.")


@dataclass
class Measurement:
    """What a way to run a model takes: MiB, and milliseconds for 10 s of sound."""

    mib: float
    milliseconds: float
    difference: float = 0.0  # from PyTorch's logits, as `largest_difference` gives it


def load_classifier(name: str) -> HEARForAudioClassification | HEARForAudioFrameClassification:
    """
    Loads a classifier in float32 and evaluation mode.

    Args:
        name (`str`): A folder, or a repository of the Hub.

    Raises:
        `ValueError`: It is another model, or a HEAR without the weights of a classifier.
    """
    config = AutoConfig.from_pretrained(name)
    if config.model_type != "hear":
        raise ValueError(
            f"{name} must be a HEAR classifier, found model type {config.model_type!r}: name another model."
        )
    model_class: Any = HEARForAudioFrameClassification if classifies_frames(config) else HEARForAudioClassification
    loaded = model_class.from_pretrained(name, dtype=torch.float32, output_loading_info=True)
    model, loading = loaded
    if loading["missing_keys"]:
        missing = ", ".join(sorted({key.split(".")[0] for key in loading["missing_keys"]}))
        raise ValueError(f"{name} must be a HEAR classifier, found weights without {missing}: fine-tune it first.")
    return model.eval()


def label_names(model: HEARForAudioClassification | HEARForAudioFrameClassification) -> list[str]:
    """The model's labels in the order of its logits."""
    return [name for _, name in sorted((model.config.id2label or {}).items())]


def export_file(
    graph: onnx.ModelProto,
    dtype: str,
    model: HEARForAudioClassification | HEARForAudioFrameClassification,
    folder: Path,
    calibration_files: list[Path] | None = None,
) -> Measurement:
    """
    Writes one file of an export.

    Args:
        graph (`onnx.ModelProto`): What `to_onnx` made of the model.
        dtype (`str`): "float32", "float16" or "int8".
        model (`HEARForAudioClassification`): The model to compare with.
        folder (`Path`): A folder that exists; the file's name is in `FILES`.
        calibration_files (`list[Path]`, *optional*): Audio on which int8 measures its ranges.

    Raises:
        `ValueError`: The logits differ too much from PyTorch's. An older file stays as it was.
    """
    copy = onnx.ModelProto()
    copy.CopyFrom(graph)
    clips = CalibrationClips(calibration_files, model.config.sampling_rate) if calibration_files else None
    with tempfile.TemporaryDirectory(dir=folder, prefix=".export-") as scratch:
        path = Path(scratch, FILES[dtype])
        write_graph(copy, dtype, path, clips)
        add_metadata(path, model)
        measurement = measure_file(path, model)
        if not measurement.difference <= TOLERANCES[dtype]:  # `not <=` catches NaN too
            raise ValueError(
                f"The logits of the {dtype} model must be within {TOLERANCES[dtype]} of PyTorch's, in units of the "
                f"largest, found {measurement.difference:.2g}: {FILES[dtype]} is not written. Take another --dtype."
            )
        os.replace(path, folder / FILES[dtype])
    return measurement


def add_metadata(path: Path, model: HEARForAudioClassification | HEARForAudioFrameClassification) -> None:
    """Adds to a file what a device must know to use it, and checks the file."""
    graph, config = onnx.load(path), model.config
    name = str(model.name_or_path)
    metadata = {
        "labels": json.dumps(label_names(model)),
        "sampling_rate": str(config.sampling_rate),
        "problem_type": config.problem_type or "single_label_classification",
        "model": Path(name).resolve().name if Path(name).exists() else name,  # a path is private
        "hear_hf_version": hear_hf.__version__,
    }
    if has_frames(model):
        plain = [DEFAULT_THRESHOLD] * len(label_names(model))
        metadata["event_thresholds"] = json.dumps(config.event_thresholds or plain)
        metadata["event_median_frames"] = str(config.event_median_frames)
    helper.set_model_props(graph, metadata)
    onnx.checker.check_model(graph)
    onnx.save(graph, path)


def measure_file(path: Path, model: HEARForAudioClassification | HEARForAudioFrameClassification) -> Measurement:
    """Measures an exported file beside its model."""
    session = open_session(path)
    clip, _ = ragged_batch((TIMED_SECONDS,), model.config.sampling_rate)
    duration = milliseconds(lambda: session.run(None, model_inputs(clip)))
    return Measurement(path.stat().st_size / 2**20, duration, largest_difference(session, model))


@torch.no_grad()
def measure_pytorch(model: HEARForAudioClassification | HEARForAudioFrameClassification) -> Measurement:
    """Measures the model itself."""
    clip = torch.from_numpy(ragged_batch((TIMED_SECONDS,), model.config.sampling_rate)[0])
    mib = sum(parameter.nbytes for parameter in model.parameters()) / 2**20
    return Measurement(mib, milliseconds(lambda: model(clip)))
