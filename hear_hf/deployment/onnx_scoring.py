"""Exported files beside PyTorch on labelled audio: what the smaller types lose, and gain."""

import copy
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from itertools import groupby
from pathlib import Path

import numpy as np
import torch
from datasets import Dataset
from tqdm.auto import tqdm
from transformers import EvalPrediction

from ..arguments import option
from ..data.labelled import label_feature
from ..data.preparation import prepare_clips
from ..evaluation.metrics import multi_label_metrics, single_label_metrics
from ..exports import label_names
from ..modeling_hear import HEARForAudioClassification
from .onnx_export import earlier_files, exported_files
from .onnx_session import Runner, model_inputs, runner
from .openvino_session import exported_irs, ir_runner, num_bytes


@dataclass
class ScoringArguments:
    """What to score."""

    model_name_or_path: str = option(help="Score this HEAR classifier: a folder, or a repository of the Hub.")
    onnx_dir: str = option(
        help="Score the files that export_onnx.py, export_openvino.py and export_executorch.py wrote of it into this "
        "folder."
    )
    threads: int = option(default=1, help="Compute with this many CPU threads.")


@dataclass
class Contestant:
    """A way to compute logits (1, num_labels) of a clip (1, num_samples), and its size."""

    name: str
    logits: Callable[[np.ndarray], np.ndarray]
    mib: float


def contestants(model: HEARForAudioClassification, onnx_dir: str) -> list[Contestant]:
    """
    Finds what to score.

    Args:
        model (`HEARForAudioClassification`): The model in float32.
        onnx_dir (`str`): The folder of its exported files.

    Returns:
        `list[Contestant]`: PyTorch in float32, which the others are compared with, and in bfloat16; then each file,
        the programs of ExecuTorch behind PyTorch on clips of their length.

    Raises:
        `ImportError`: The folder holds files for OpenVINO or ExecuTorch, which is not installed.
        `ValueError`: The folder holds no exported file.
    """
    exported, irs = exported_files(Path(onnx_dir)), exported_irs(Path(onnx_dir))
    programs = sorted(Path(onnx_dir).glob("*.pte"))
    if not exported and not irs and not programs:
        earlier = earlier_files(Path(onnx_dir)) or "Export first."
        commands = "export_onnx.py, export_openvino.py or export_executorch.py"
        raise ValueError(f"`onnx_dir` must hold files of {commands}, found none in {onnx_dir}. {earlier}")
    return [
        *(pytorch_contestant(model, dtype) for dtype in (torch.float32, torch.bfloat16)),
        *(file_contestant(f"ONNX {dtype}", runner(path), path.stat().st_size) for dtype, path in exported.items()),
        *(file_contestant(f"OpenVINO {dtype}", ir_runner(path), num_bytes(path)) for dtype, path in irs.items()),
        *(program_contestants(programs, model) if programs else []),
    ]


def pytorch_contestant(model: HEARForAudioClassification, dtype: torch.dtype) -> Contestant:
    """A copy of the model in this type."""
    converted: torch.nn.Module = copy.deepcopy(model)  # `PreTrainedModel.to` has no useful type
    converted.to(dtype)

    def logits(clip: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            return converted(torch.from_numpy(clip)).logits.float().numpy()

    size = sum(parameter.nbytes for parameter in converted.parameters()) / 2**20
    return Contestant(f"PyTorch {str(dtype).removeprefix('torch.')}", logits, size)


def file_contestant(name: str, run: Runner, num_bytes: int) -> Contestant:
    """An exported file."""
    return Contestant(name, lambda clip: run(model_inputs(clip)), num_bytes / 2**20)


def program_contestants(paths: list[Path], model: HEARForAudioClassification) -> list[Contestant]:
    """ExecuTorch's programs, which read clips of one length: shorter ones are repeated, longer ones cut.

    PyTorch on the same clips comes ahead of the programs of each length.
    """
    from ..mobile.executorch_session import num_samples_of, open_program  # needs an extra

    found = []
    for num_samples, programs in groupby(sorted(paths, key=num_samples_of), num_samples_of):
        float32, seconds = pytorch_contestant(model, torch.float32), num_samples / model.config.sampling_rate
        found.append(of_length(num_samples, replace(float32, name=f"{float32.name}, clips of {seconds:g} s")))
        for path in programs:
            logits, mib = partial(run_program, open_program(path)), path.stat().st_size / 2**20
            found.append(of_length(num_samples, Contestant(f"ExecuTorch {path.stem}", logits, mib)))
    return found


def run_program(program: Callable[[torch.Tensor], torch.Tensor], clip: np.ndarray) -> np.ndarray:
    return program(torch.from_numpy(clip)).numpy()


def of_length(num_samples: int, contestant: Contestant) -> Contestant:
    """A contestant that gets all clips in one length."""
    return replace(contestant, logits=lambda clip: contestant.logits(np.resize(clip, (1, num_samples))))


def check_labels(model: HEARForAudioClassification, clips: Dataset) -> None:
    """Refuses clips whose labels are not the model's, in its order."""
    ours, theirs = label_names(model), label_feature(clips)[0].names
    if ours != theirs:
        raise ValueError(
            f"The model's labels must be those of the clips, found: {len(ours)} and {len(theirs)}, "
            f"the first {ours[0]!r} and {theirs[0]!r}. Take the data that it was trained on."
        )


def score(
    contestants: list[Contestant], clips: Dataset, model: HEARForAudioClassification
) -> list[dict[str, float | str]]:
    """
    Scores each contestant on labelled clips.

    Args:
        contestants (`list[Contestant]`): The others are compared with the first.
        clips (`Dataset`): A split of `load_labelled_audio` with the model's labels.
        model (`HEARForAudioClassification`): The model, which says at which rate clips are decoded.

    Returns:
        `list[dict]`: A row for each: name, size, metrics, the share of clips labelled as by the first, and time.

    Raises:
        `ValueError`: The clips have other labels than the model.
    """
    check_labels(model, clips)
    multi_label = label_feature(clips)[1]
    metrics = multi_label_metrics if multi_label else single_label_metrics
    prepared = prepare_clips(clips, model.config.sampling_rate)
    rows, reference = [], None
    for contestant in contestants:
        logits, labels, milliseconds = predict(contestant, prepared)
        chosen = logits > 0 if multi_label else logits.argmax(-1)
        reference = chosen if reference is None else reference
        row: dict[str, float | str] = {"": contestant.name, "MiB": contestant.mib}
        row |= {name: 100 * value for name, value in metrics(EvalPrediction(logits, labels)).items()}
        row |= {"as float32": 100 * float(np.mean(chosen == reference)), "ms a clip": milliseconds}
        rows.append(row)
    return rows


def predict(contestant: Contestant, clips: Dataset) -> tuple[np.ndarray, np.ndarray, float]:
    """Computes the logits of all clips one by one: logits, labels, and milliseconds of computing per clip."""
    logits, labels, seconds = [], [], 0.0
    for clip in tqdm(clips, desc=contestant.name):
        waveform = np.asarray(clip["input_values"], dtype=np.float32)[None]
        start = time.perf_counter()
        logits.append(contestant.logits(waveform)[0])
        seconds += time.perf_counter() - start
        labels.append(clip["labels"])
    return np.stack(logits), np.stack(labels), 1000 * seconds / len(labels)
