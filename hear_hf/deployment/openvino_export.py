"""Export of a HEAR classifier to OpenVINO files: each is compared with PyTorch before it is put in place.

Needs the extra `openvino`.
"""

import json
import logging
import os
import sys
import tempfile
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import onnx

from ..arguments import option
from ..extras import require
from ..modeling_hear import HEARForAudioClassification, HEARForAudioFrameClassification
from .onnx_dtypes import CALIBRATION_CLIPS, CalibrationClips, write_graph
from .onnx_export import TOLERANCES, ExportArguments, Measurement, check_difference, measure_file, metadata_of
from .onnx_graph import FRONT_END
from .openvino_session import FILES, METADATA, fix_length, ir_runner, num_bytes

if TYPE_CHECKING:
    import openvino

MIN_SECONDS, MAX_SECONDS = 0.02, 3600  # of a fixed length
# Weights in float16 are computed with in bfloat16 where the CPU can. Integers fit clips like those that measured their
# ranges, not the noise of this check; `score_onnx.py` says what they lose.
IR_TOLERANCES = TOLERANCES | {"float16": 0.1, "int8": 0.5}


@dataclass
class IRArguments(ExportArguments):
    """What to write for OpenVINO."""

    seconds: float | None = option(
        default=None, help="Fix the length of clips, for example of live windows, which are then read faster."
    )

    def __post_init__(self):
        super().__post_init__()
        if "int8" in self.dtype and not self.calibration_data:
            raise ValueError("--dtype int8 needs --calibration_data, found none: name a folder of real clips.")
        if self.seconds is not None and not MIN_SECONDS <= self.seconds <= MAX_SECONDS:
            raise ValueError(f"`seconds` must be {MIN_SECONDS} to {MAX_SECONDS}, found: {self.seconds:g}")


def export_ir(
    graph: onnx.ModelProto,
    dtype: str,
    model: HEARForAudioClassification | HEARForAudioFrameClassification,
    folder: Path,
    calibration_files: list[Path] | None = None,
    seconds: float | None = None,
) -> Measurement:
    """
    Writes one file of an export, and its weights beside it.

    Args:
        graph (`onnx.ModelProto`): What `to_onnx` made of the model.
        dtype (`str`): "float32", "float16" or "int8".
        model (`HEARForAudioClassification`): The model to compare with.
        folder (`Path`): An export's folder, which exists; the file is in it, under its name in `FILES`.
        calibration_files (`list[Path]`, *optional*): Audio on which int8 measures its ranges, which it needs.
        seconds (`float`, *optional*): The length of the only clips that the file will read, one at a time.

    Raises:
        `ImportError`: OpenVINO or NNCF is not installed; the message gives the command that installs it.
        `ValueError`: The logits differ too much from PyTorch's. An older file stays as it was.
    """
    require("The export to OpenVINO", "openvino", "openvino", *(["nncf"] if dtype == "int8" else []))
    import openvino

    target, rate = folder / FILES[dtype], model.config.sampling_rate
    metadata = metadata_of(model) | ({"precision": "f32"} if dtype == "float32" else {})
    with tempfile.TemporaryDirectory(dir=folder, prefix=".export-") as scratch:
        ir = read_graph(graph, "float16" if dtype == "float16" else "float32", Path(scratch, "model.onnx"))
        if dtype == "int8":
            ir = quantize(ir, CalibrationClips(calibration_files or [], rate))
        if seconds:
            metadata["num_samples"] = str(round(seconds * rate))
            fix_length(ir, round(seconds * rate))
        ir.set_rt_info(json.dumps(metadata), METADATA)
        path = Path(scratch, target.name)
        openvino.save_model(ir, path, compress_to_fp16=False)
        measurement = measure_file(ir_runner(path), model, num_bytes(path), seconds)
        check_difference(measurement.difference, IR_TOLERANCES[dtype], dtype, target.name)
        for suffix in (".bin", ".xml"):
            os.replace(path.with_suffix(suffix), target.with_suffix(suffix))
    return measurement


def read_graph(graph: onnx.ModelProto, dtype: str, path: Path) -> "openvino.Model":
    """Reads a graph that is stored in this type, by way of a file at `path`."""
    import openvino

    copy = onnx.ModelProto()
    copy.CopyFrom(graph)
    write_graph(copy, dtype, path)
    return openvino.Core().read_model(path)


def quantize(ir: "openvino.Model", clips: CalibrationClips) -> "openvino.Model":
    """Quantises all but the front end to 8 bits, with ranges measured on clips; progress goes to stderr."""
    os.environ.setdefault("NNCF_CI", "1")  # else NNCF reports its use over the network, without being asked to
    import nncf
    from nncf.quantization.range_estimator import RangeEstimatorParametersSet

    logging.getLogger("nncf").setLevel(logging.ERROR)  # its own function changes pytest's handlers too
    settings = nncf.AdvancedQuantizationParameters(
        overflow_fix=nncf.OverflowFix.ENABLE,  # 7-bit weights, for CPUs without VNNI: as in the ONNX file
        activations_range_estimator_params=RangeEstimatorParametersSet.MINMAX,
        # Without SmoothQuant: that of NNCF 3.4 moves hear-tiny's logits by a quarter of the largest, the rest by 2 %.
        smooth_quant_alphas=nncf.AdvancedSmoothQuantParameters(matmul=-1),
    )
    with redirect_stdout(sys.stderr):
        return nncf.quantize(
            ir,
            nncf.Dataset(list(iter(clips.get_next, None))),
            model_type=nncf.ModelType.TRANSFORMER,
            subset_size=CALIBRATION_CLIPS,
            ignored_scope=nncf.IgnoredScope(patterns=[f"{FRONT_END}.*"]),
            advanced_parameters=settings,
        )
