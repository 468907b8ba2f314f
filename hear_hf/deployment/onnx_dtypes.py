"""The types that a graph may be stored in: float32 as it is, weights in float16, linear layers in int8."""

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_dynamic, quantize_static

from ..data.decoding import decode_audio
from ..data.sources import audio_files
from .onnx_graph import is_front_end, linear_layers
from .onnx_session import model_inputs

DTYPES = ("float32", "float16", "int8")
CALIBRATION_CLIPS = 64
CALIBRATION_SECONDS = 6
MIN_WEIGHT_SIZE = 1024  # smaller tensors are biases and norms, which stay in float32


class CalibrationClips(CalibrationDataReader):
    """One clip after another, cut to a few seconds, as the model's inputs."""

    def __init__(self, files: list[Path], sampling_rate: int):
        self.clips = (decode_audio(file, sampling_rate)[: CALIBRATION_SECONDS * sampling_rate] for file in files)

    def get_next(self) -> dict[str, np.ndarray] | None:
        clip = next(self.clips, None)
        return None if clip is None else model_inputs(clip[None])


def calibration_files(folder: str, seed: int = 0) -> list[Path]:
    """Draws at most 64 of the audio files in a folder and its sub-folders."""
    files = audio_files(folder)
    if not files:
        raise ValueError(
            f"--calibration_data must be a folder with audio files, found none in {folder}. Name another folder."
        )
    order = np.random.default_rng(seed).permutation(len(files))[:CALIBRATION_CLIPS]
    return [files[i] for i in order]


def write_graph(graph: onnx.ModelProto, dtype: str, path: Path, clips: CalibrationClips | None = None) -> None:
    """
    Writes a float32 graph in one of the `DTYPES`.

    Args:
        graph (`onnx.ModelProto`): What `to_onnx` made; it is changed.
        dtype (`str`): "float32", "float16" or "int8".
        path (`Path`): The file to write.
        clips (`CalibrationClips`, *optional*): Audio on which int8 measures its ranges now, not as the model runs.
    """
    if dtype == "int8":
        quantize(graph, path, clips)
        return
    if dtype == "float16":
        store_in_float16(graph.graph)
    onnx.save(graph, path)


def store_in_float16(graph: onnx.GraphProto) -> None:
    """Stores the weights in float16; a cast, which runtimes do once when they load the graph, restores float32."""
    front_end = {name for node in graph.node if is_front_end(node) for name in node.input}
    casts = []
    for tensor in graph.initializer:
        array = numpy_helper.to_array(tensor)
        if array.dtype != np.float32 or array.size < MIN_WEIGHT_SIZE or tensor.name in front_end:
            continue
        half = numpy_helper.from_array(array.astype(np.float16), f"{tensor.name}.float16")
        casts.append(helper.make_node("Cast", [half.name], [tensor.name], f"{tensor.name}.cast", to=TensorProto.FLOAT))
        tensor.CopyFrom(half)
    nodes = [*casts, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)


def quantize(graph: onnx.ModelProto, path: Path, clips: CalibrationClips | None) -> None:
    """Writes the graph with linear layers that multiply 8-bit activations by 7-bit weights."""
    options = {
        "op_types_to_quantize": ["MatMul"],
        "nodes_to_quantize": linear_layers(graph.graph),
        "per_channel": True,
        "weight_type": QuantType.QInt8,
        "reduce_range": True,  # x86 CPUs without VNNI add two products in 16 bits: those of 8-bit weights overflow
    }
    if clips is None:
        quantize_dynamic(graph, path, **options)
    else:
        quantize_static(graph, path, clips, activation_type=QuantType.QUInt8, **options)
