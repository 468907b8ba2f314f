"""Export of a HEAR classifier to ONNX files: each is compared with PyTorch before it is put in place."""

import json
import logging
import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

import onnx
import torch
from onnx import helper
from transformers.utils import CONFIG_NAME, FEATURE_EXTRACTOR_NAME, cached_file

import hear_hf

from ..arguments import option
from ..classifiers import loading
from ..events import DEFAULT_THRESHOLD
from ..exports import Classifier, label_names, load_classifier, milliseconds
from ..modeling_hear import HEARForAudioClassification, HEARForAudioFrameClassification
from .onnx_dtypes import DTYPES, CalibrationClips, calibration_files, write_graph
from .onnx_graph import has_frames
from .onnx_session import (
    CHECKED_SECONDS,
    Runner,
    largest_difference,
    model_inputs,
    open_session,
    ragged_batch,
    runner,
)

# Where transformers.js looks for the types that it calls fp32, fp16 and q8, in a repository of the Hub.
FOLDER = "onnx"
FILES = {"float32": "model.onnx", "float16": "model_fp16.onnx", "int8": "model_quantized.onnx"}
EARLIER = ("model.onnx", "model_float16.onnx", "model_int8.onnx")  # what the first exports wrote beside that folder
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
    """What a way to run a model takes: MiB, and milliseconds for some seconds of sound, 10 by default."""

    mib: float
    milliseconds: float
    difference: float = 0.0  # from PyTorch's logits, as `largest_difference` gives it

    def row(self, name: str, path: Path | None = None) -> str:
        """A row below `table_head`, of PyTorch itself where there is no file."""
        difference = f"{self.difference:13.1e}" if path else " " * 13
        return f"{name:10}{self.mib:10.1f}{difference}{self.milliseconds:14.1f}" + (f"   {path}" if path else "")


def table_head(seconds: float = TIMED_SECONDS) -> str:
    """The head of a table of `Measurement.row`, of clips this long."""
    return f"{'':10}       MiB   difference   ms for {seconds:g} s   ({torch.get_num_threads()} threads)"


def exported_files(folder: Path) -> dict[str, Path]:
    """The files of an export by their types, those that there are."""
    paths = {dtype: folder / FOLDER / file for dtype, file in FILES.items()}
    return {dtype: path for dtype, path in paths.items() if path.is_file()}


def earlier_files(folder: Path) -> str:
    """Says which files of the first exports a folder still holds; empty if there are none."""
    found = [file for file in EARLIER if (folder / file).is_file()]
    names = f"{FOLDER}/{{{', '.join(FILES.values())}}}"
    return f"{folder} holds {', '.join(found)} of an earlier version: today's are {names}." if found else ""


def prepare(args: ExportArguments, name: str, folder: Path) -> tuple[Classifier, list[Path] | None]:
    """
    Makes an export's folder, with what a runtime reads beside the graphs, and ends the command where it cannot.

    Args:
        args (`ExportArguments`): The number of threads, and where the clips are to calibrate on.
        name (`str`): The model: a folder, or a repository of the Hub.
        folder (`Path`): Is made if need be.

    Returns:
        The model, and the clips to calibrate on if there are to be any.
    """
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    if args.threads:
        torch.set_num_threads(args.threads)
    clips = calibration_files(args.calibration_data) if args.calibration_data else None
    with loading(name):
        model = load_classifier(name)
    folder.mkdir(parents=True, exist_ok=True)
    copy_configuration(name, folder)
    return model, clips


def copy_configuration(name: str, folder: Path) -> None:
    """
    Copies what a runtime reads beside the graphs from a model's folder or repository: a folder for itself.

    Raises:
        `ValueError`: The folder holds another model, whose labels the graphs would get.
    """
    for file in (CONFIG_NAME, FEATURE_EXTRACTOR_NAME):
        found, target = cached_file(name, file, _raise_exceptions_for_missing_entries=False), folder / file
        if found is None or (target.is_file() and target.read_bytes() == Path(found).read_bytes()):
            continue
        if any(folder.glob("*.safetensors")):
            raise ValueError(f"{folder} must be empty or the folder of {name}, found another model. Give another one.")
        shutil.copyfile(found, target)


def check_exported(folder: Path) -> None:
    """
    Compares the exported files of a model's folder with the model in it.

    Raises:
        `ValueError`: There is none, one is of other weights or other labels, or the model is no HEAR classifier.
    """
    files = exported_files(folder)
    if not files:
        raise ValueError(f"{FOLDER}/ must hold files of export_onnx.py, found none. Export the model into its folder.")
    model = load_classifier(str(folder))
    for dtype, path in files.items():
        labels = open_session(path).get_modelmeta().custom_metadata_map.get("labels", "null")
        difference = largest_difference(runner(path), model)
        if json.loads(labels) != label_names(model) or not difference <= TOLERANCES[dtype]:
            raise ValueError(
                f"{FOLDER}/{path.name} must have the model's labels and, within {TOLERANCES[dtype]}, its logits, "
                f"found a difference of {difference:.2g} or other labels. Export the model again."
            )


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
        folder (`Path`): An export's folder, which exists; the file is in its `FOLDER`, under its name in `FILES`.
        calibration_files (`list[Path]`, *optional*): Audio on which int8 measures its ranges.

    Raises:
        `ValueError`: The logits differ too much from PyTorch's. An older file stays as it was.
    """
    target = folder / FOLDER / FILES[dtype]
    target.parent.mkdir(exist_ok=True)
    copy = onnx.ModelProto()
    copy.CopyFrom(graph)
    clips = CalibrationClips(calibration_files, model.config.sampling_rate) if calibration_files else None
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".export-") as scratch:
        path = Path(scratch, target.name)
        write_graph(copy, dtype, path, clips)
        add_metadata(path, model)
        measurement = measure_file(runner(path), model, path.stat().st_size)
        check_difference(measurement.difference, TOLERANCES[dtype], dtype, target.name)
        os.replace(path, target)
    return measurement


def check_difference(difference: float, tolerance: float, dtype: str, name: str) -> None:
    """Refuses a file whose logits are further from PyTorch's than its type may bring."""
    if not difference <= tolerance:  # `not <=` catches NaN too
        raise ValueError(
            f"The logits of the {dtype} model must be within {tolerance} of PyTorch's, in units of the "
            f"largest, found {difference:.2g}: {name} is not written. Take another --dtype."
        )


def metadata_of(model: HEARForAudioClassification | HEARForAudioFrameClassification) -> dict[str, str]:
    """What a device must know to use a file of the model."""
    config, name = model.config, str(model.name_or_path)
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
    return metadata


def add_metadata(path: Path, model: HEARForAudioClassification | HEARForAudioFrameClassification) -> None:
    """Adds to a file what a device must know to use it, and checks the file."""
    graph = onnx.load(path)
    helper.set_model_props(graph, metadata_of(model))
    onnx.checker.check_model(graph)
    onnx.save(graph, path)


def measure_file(
    run: Runner,
    model: HEARForAudioClassification | HEARForAudioFrameClassification,
    num_bytes: int,
    seconds: float | None = None,
) -> Measurement:
    """Measures an exported file beside its model, on clips of these seconds alone if any are given."""
    clip, _ = ragged_batch((seconds or TIMED_SECONDS,), model.config.sampling_rate)
    duration = milliseconds(lambda: run(model_inputs(clip)))
    difference = largest_difference(run, model, ((seconds,),) if seconds else CHECKED_SECONDS)
    return Measurement(num_bytes / 2**20, duration, difference)


@torch.no_grad()
def measure_pytorch(
    model: HEARForAudioClassification | HEARForAudioFrameClassification, seconds: float = TIMED_SECONDS
) -> Measurement:
    """Measures the model itself."""
    clip = torch.from_numpy(ragged_batch((seconds,), model.config.sampling_rate)[0])
    mib = sum(parameter.nbytes for parameter in model.parameters()) / 2**20
    return Measurement(mib, milliseconds(lambda: model(clip)))
