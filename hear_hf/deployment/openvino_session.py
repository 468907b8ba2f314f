"""Exported files in OpenVINO: how they are opened and run. Needs the extra `openvino`."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from ..extras import require
from .onnx_session import Runner

if TYPE_CHECKING:
    import openvino

# What Optimum Intel opens by default, and the name that sentence-transformers gives to its integers.
FILES = {
    "float32": "openvino_model.xml",
    "float16": "openvino_model_fp16.xml",
    "int8": "openvino_model_qint8_quantized.xml",
}
METADATA = "hear_hf"  # the place of the metadata among the information that a file holds about itself


def exported_irs(folder: Path) -> dict[str, Path]:
    """The OpenVINO files of an export by their types, those that there are."""
    paths = {dtype: folder / file for dtype, file in FILES.items()}
    return {dtype: path for dtype, path in paths.items() if path.is_file()}


def num_bytes(path: Path) -> int:
    """The size of a file with its weights, which are beside it."""
    return path.stat().st_size + path.with_suffix(".bin").stat().st_size


def read_metadata(model: "openvino.Model") -> dict[str, str]:
    """What `export_ir` noted in a file; empty in files of others."""
    return json.loads(model.get_rt_info(METADATA).astype(str)) if model.has_rt_info(METADATA) else {}


def ir_runner(path: Path, num_samples: int | None = None) -> Runner:
    """
    Opens a file, to run on as many CPU threads as PyTorch.

    It computes in the precision that its metadata ask for, or in OpenVINO's choice, which is bfloat16 where the CPU
    has instructions for it.

    Args:
        path (`Path`): The file, .xml or .onnx.
        num_samples (`int`, *optional*): The length of the only clips that it will read, one at a time.

    Raises:
        `ImportError`: OpenVINO is not installed; the message gives the command that installs it.
    """
    require("OpenVINO", "openvino", "openvino")
    import openvino

    core = openvino.Core()
    model = core.read_model(path)
    if num_samples is not None:
        fix_length(model, num_samples)
    settings = {"INFERENCE_NUM_THREADS": torch.get_num_threads(), "PERFORMANCE_HINT": "LATENCY"}
    if precision := read_metadata(model).get("precision"):
        settings["INFERENCE_PRECISION_HINT"] = precision
    compiled = core.compile_model(model, "CPU", settings)
    return lambda inputs: compiled(inputs)["logits"]


def fix_length(model: "openvino.Model", num_samples: int) -> None:
    """Makes a model read one clip at a time, of this length alone: shapes are then worked out once."""
    model.reshape({name: [1, num_samples] for name in ("input_values", "attention_mask")})
