"""Export of a HEAR classifier to ExecuTorch programs: each is compared with PyTorch before it is put in place."""

import json
import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
from executorch.backends.xnnpack.quantizer.xnnpack_quantizer import (
    XNNPACKQuantizer,
    get_symmetric_quantization_config,
)
from executorch.exir import EdgeProgramManager, to_edge_transform_and_lower
from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e

import hear_hf

from ..arguments import option
from ..exports import Classifier, label_names, milliseconds
from ..static_graph import StaticClassifier, check_length
from .executorch_session import open_program, program_path

DTYPES = ("float32", "int8")
# Largest difference of a logit from PyTorch's, in units of the largest logit, or of 1 where all are smaller.
TOLERANCES = {"float32": 1e-3, "int8": 0.25}
CHECKED_CLIPS = 3


@dataclass
class MobileArguments:
    """What to write."""

    seconds: float = option(default=10.0, help="Let the program read clips of this length, at most 30 s.")
    dtype: list[str] = option(
        default_factory=lambda: ["float32"],
        metadata={"choices": DTYPES},
        help="Write a program for each of these types.",
    )


@dataclass
class Measurement:
    """What a way to run a model takes: MiB, and milliseconds for a clip."""

    mib: float
    milliseconds: float
    difference: float = 0.0  # of a logit from PyTorch's, in the units of `TOLERANCES`


@torch.no_grad()
def measure_pytorch(model: Classifier, seconds: float) -> Measurement:
    """The model itself, for a clip of this length; a `ValueError` if none can be of it."""
    num_samples = round(seconds * model.config.sampling_rate)
    check_length(model.config, num_samples)
    clip = noise(num_samples, seed=0)
    mib = sum(parameter.nbytes for parameter in model.parameters()) / 2**20
    return Measurement(mib, milliseconds(lambda: model(clip)))


def export_program(model: Classifier, seconds: float, dtype: str, folder: Path) -> Measurement:
    """
    Writes a program for clips of one length, and the JSON file beside it.

    Args:
        model (`HEARForAudioClassification` or `HEARForAudioFrameClassification`):
            A model in float32 and evaluation mode.
        seconds (`float`): The length of the clips.
        dtype (`str`): One of `DTYPES`.
        folder (`Path`): Where the files go, under the name that `program_path` gives.

    Raises:
        `ValueError`: The clips are too short or too long, or the logits differ too much from PyTorch's. An older file
            stays as it was.
    """
    num_samples = round(seconds * model.config.sampling_rate)
    clips = [noise(num_samples, seed) for seed in range(CHECKED_CLIPS)]
    target = program_path(folder, seconds, dtype)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".export-") as scratch:
        path = Path(scratch, target.name)
        lowered = lower(StaticClassifier(model, num_samples), dtype, clips[0])
        path.write_bytes(lowered.to_executorch().buffer)
        run = open_program(path)
        difference = largest_difference(run, model, clips)
        if not difference <= TOLERANCES[dtype]:  # `not <=` catches NaN too
            raise ValueError(
                f"The logits of the {dtype} program must be within {TOLERANCES[dtype]} of PyTorch's, in units of the "
                f"largest, found {difference:.2g}: {target.name} is not written. Take another --dtype."
            )
        duration = milliseconds(lambda: run(clips[0]))
        path.with_suffix(".json").write_text(json.dumps(description(model, num_samples), indent=2) + "\n")
        for suffix in (".pte", ".json"):
            os.replace(path.with_suffix(suffix), target.with_suffix(suffix))
    return Measurement(target.stat().st_size / 2**20, duration, difference)


@torch.no_grad()
def lower(static: StaticClassifier, dtype: str, clip: torch.Tensor) -> EdgeProgramManager:
    """A program of one of the `DTYPES`, of which XNNPACK takes what it can."""
    exported = torch.export.export(static, (clip,), strict=False)
    if dtype == "int8":
        exported = quantised(exported, clip)
    return to_edge_transform_and_lower(exported, partitioner=[XnnpackPartitioner()])


def quantised(exported: torch.export.ExportedProgram, clip: torch.Tensor) -> torch.export.ExportedProgram:
    """Lets linear layers multiply 8-bit weights and activations, whose ranges are measured as the program runs.

    The front end, means and relative positions, whose factors are no parameters, stay in float32.
    """
    graph = exported.module()
    parameters = dict(graph.named_parameters(remove_duplicate=False))
    quantizer = XNNPACKQuantizer().set_global(get_symmetric_quantization_config(is_per_channel=True, is_dynamic=True))
    quantizer.set_filter_function(lambda node: node.args[1].target in parameters)
    prepared = prepare_pt2e(graph, quantizer)
    prepared(clip)
    return torch.export.export(convert_pt2e(prepared), (clip,), strict=False)


@torch.no_grad()
def largest_difference(
    run: Callable[[torch.Tensor], torch.Tensor], model: Classifier, clips: list[torch.Tensor]
) -> float:
    """The largest difference of logits from PyTorch's, in units of the largest, or of 1; NaN if any is."""
    differences = []
    for clip in clips:
        expected = model(clip).logits
        differences.append((run(clip) - expected).abs().max() / expected.abs().max().clamp(min=1))
    return float(torch.stack(differences).max())


def noise(num_samples: int, seed: int) -> torch.Tensor:
    """A clip of noise with a slow rise, (1, num_samples)."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(1, num_samples, generator=generator) * torch.linspace(0.01, 0.3, num_samples)


def description(model: Classifier, num_samples: int) -> dict[str, object]:
    """What a device must know to use a program."""
    config = model.config
    return {
        "labels": label_names(model),
        "sampling_rate": config.sampling_rate,
        "num_samples": num_samples,
        "problem_type": config.problem_type or "single_label_classification",
        "hear_hf_version": hear_hf.__version__,
    }
