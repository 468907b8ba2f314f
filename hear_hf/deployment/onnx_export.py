"""Export of a HEAR classifier to ONNX: waveform and mask -> logits, in one graph, in several types."""

import json
import os
import tempfile
import time
from pathlib import Path

import numpy as np
import onnx
import onnx_ir.passes.common as ir_passes
import onnxruntime
import torch
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_dynamic, quantize_static
from transformers import AutoModelForAudioClassification, PreTrainedConfig

import hear_hf

from ..data.decoding import decode_audio
from ..data.sources import AUDIO_SUFFIXES

FILES = {"float32": "model.onnx", "float16": "model_float16.onnx", "int8": "model_int8.onnx"}
# Largest difference of a logit from PyTorch's, in units of the largest logit (or of 1 where all are smaller).
TOLERANCES = {"float32": 1e-3, "float16": 2e-2, "int8": 0.25}
CHECKED_SECONDS = ((0.1, 1.0, 3.3), (6.0, 6.1, 0.02), (11.0, 35.0))  # one ragged batch each
CALIBRATION_CLIPS = 64
CALIBRATION_SECONDS = 6
MIN_WEIGHT_SIZE = 1024  # smaller tensors are biases and norms, which stay in float32


class Classifier(torch.nn.Module):
    """Waveform and mask -> logits, a tensor rather than an output object."""

    def __init__(self, model: torch.nn.Module):
        super().__init__()
        self.model = model

    def forward(self, input_values: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        return self.model(input_values, attention_mask).logits


@torch.no_grad()
def to_onnx(model: torch.nn.Module) -> onnx.ModelProto:
    """The graph in float32. The clips it is traced with have several windows and segments: one graph fits all."""
    num_samples = model.config.inputs_to_logits_ratio * (2 * model.config.max_position_embeddings + 40)
    inputs = (torch.randn(2, num_samples), torch.ones(2, num_samples, dtype=torch.long))
    free = torch.export.Dim.DYNAMIC
    program = torch.export.export(
        Classifier(model),
        inputs,
        dynamic_shapes=({0: free, 1: free}, {0: free, 1: free}),
        strict=False,
        prefer_deferred_runtime_asserts_over_guards=True,
    )
    exported = torch.onnx.export(
        program,
        dynamo=True,
        opset_version=18,
        input_names=["input_values", "attention_mask"],
        output_names=["logits"],
        verbose=False,
    )
    ir_passes.CommonSubexpressionEliminationPass()(exported.model)
    graph = exported.model_proto
    fold_transposes(graph.graph)
    return graph


def fold_transposes(graph: onnx.GraphProto) -> None:
    """Transposes the weights of linear layers now: quantisation only sees those that are stored as they are used."""
    weights = {tensor.name: tensor for tensor in graph.initializer}
    for node in [node for node in graph.node if node.op_type == "Transpose" and node.input[0] in weights]:
        array = numpy_helper.to_array(weights[node.input[0]])
        axes = helper.get_node_attr_value(node, "perm")
        graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(array.transpose(axes)), node.output[0]))
        graph.node.remove(node)
    remove_unused(graph)


def remove_unused(graph: onnx.GraphProto) -> None:
    used = {name for node in graph.node for name in node.input}
    for tensor in [tensor for tensor in graph.initializer if tensor.name not in used]:
        graph.initializer.remove(tensor)


def of_front_end(node: onnx.NodeProto) -> bool:
    return any("spectrogram:" in prop.value for prop in node.metadata_props if prop.key.endswith("namespace"))


def linear_layers(graph: onnx.GraphProto) -> list[str]:
    """Names of the products with a stored weight, but for the front end's."""
    weights = {tensor.name for tensor in graph.initializer}
    products = [node for node in graph.node if node.op_type == "MatMul" and node.input[1] in weights]
    return [node.name for node in products if not of_front_end(node)]


def store_in_float16(graph: onnx.GraphProto) -> None:
    """Stores the weights in float16; a cast, which runtimes do once when they load the graph, restores float32."""
    front_end = {name for node in graph.node if of_front_end(node) for name in node.input}
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


class CalibrationClips(CalibrationDataReader):
    """One clip after another, cut to a few seconds, as the model's inputs."""

    def __init__(self, files: list[Path], sampling_rate: int):
        self.clips = (decode_audio(file, sampling_rate)[: CALIBRATION_SECONDS * sampling_rate] for file in files)

    def get_next(self) -> dict[str, np.ndarray] | None:
        clip = next(self.clips, None)
        return None if clip is None else model_inputs(clip[None])


def model_inputs(input_values: np.ndarray, attention_mask: np.ndarray | None = None) -> dict[str, np.ndarray]:
    mask = np.ones_like(input_values) if attention_mask is None else attention_mask
    return {"input_values": input_values.astype(np.float32), "attention_mask": mask.astype(np.int64)}


def calibration_files(folder: str, seed: int = 0) -> list[Path]:
    """At most 64 audio files of a folder and those in it, drawn at random."""
    files = sorted(path for path in Path(folder).rglob("*") if path.suffix.lower() in AUDIO_SUFFIXES)
    if not files:
        raise ValueError(f"--calibration_data must be a folder with audio files, found none in {folder}.")
    order = np.random.default_rng(seed).permutation(len(files))[:CALIBRATION_CLIPS]
    return [files[i] for i in order]


def write_variant(
    graph: onnx.ModelProto, dtype: str, path: Path, files: list[Path] | None, sampling_rate: int
) -> None:
    """Writes the float32 graph to `path` in another `dtype`."""
    if dtype == "float16":
        store_in_float16(graph.graph)
    if dtype != "int8":
        onnx.save(graph, path)
        return
    options = {
        "nodes_to_quantize": linear_layers(graph.graph),
        "per_channel": True,
        "weight_type": QuantType.QInt8,
        "reduce_range": True,  # x86 CPUs without VNNI add two products in 16 bits: those of 8-bit weights overflow
    }
    if files is None:
        quantize_dynamic(graph, path, op_types_to_quantize=["MatMul"], **options)
    else:
        clips = CalibrationClips(files, sampling_rate)
        quantize_static(
            graph, path, clips, op_types_to_quantize=["MatMul"], activation_type=QuantType.QUInt8, **options
        )


def add_metadata(path: Path, config: PreTrainedConfig, name: str) -> None:
    graph = onnx.load(path)
    metadata = {
        "labels": json.dumps([config.id2label[i] for i in range(config.num_labels)]),
        "sampling_rate": str(config.sampling_rate),
        "problem_type": config.problem_type or "single_label_classification",
        "model": name,
        "hear_hf_version": hear_hf.__version__,
    }
    helper.set_model_props(graph, metadata)
    onnx.checker.check_model(graph)
    onnx.save(graph, path)


def open_session(path: Path) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def ragged_batch(seconds: tuple[float, ...], sampling_rate: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Noise of these lengths with a slow rise, padded with more noise: waveforms and mask."""
    generator = np.random.default_rng(seed)
    lengths = [int(sampling_rate * length) for length in seconds]
    waveform = generator.standard_normal((len(lengths), max(lengths)), dtype=np.float32)
    waveform *= np.linspace(0.01, 0.3, max(lengths), dtype=np.float32)
    return waveform, np.arange(max(lengths)) < np.array(lengths)[:, None]


@torch.no_grad()
def largest_difference(session: onnxruntime.InferenceSession, model: torch.nn.Module) -> float:
    """From PyTorch's logits in units of the largest, over ragged batches and over their longest clips alone."""
    differences = []
    for seed, seconds in enumerate(CHECKED_SECONDS):
        waveform, mask = ragged_batch(seconds, model.config.sampling_rate, seed)
        expected = model(torch.from_numpy(waveform), torch.from_numpy(mask)).logits.numpy()
        longest = slice(row := int(mask.sum(1).argmax()), row + 1)
        for rows in (slice(None), longest):
            (logits,) = session.run(None, model_inputs(waveform[rows], mask[rows]))
            differences.append(np.abs(logits - expected[rows]).max() / max(1.0, np.abs(expected).max()))
    return float(np.max(differences))  # NaN if any is


def milliseconds(function, repetitions: int = 5) -> float:
    times = []
    for _ in range(repetitions):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return 1000 * min(times)


def load(model_name: str) -> torch.nn.Module:
    model, loading = AutoModelForAudioClassification.from_pretrained(
        model_name, dtype=torch.float32, output_loading_info=True
    )
    if model.config.model_type != "hear":
        raise ValueError(f"{model_name} must be a HEAR classifier, found model type {model.config.model_type!r}.")
    if loading["missing_keys"]:
        missing = ", ".join(sorted({key.split(".")[0] for key in loading["missing_keys"]}))
        raise ValueError(
            f"{model_name} must be a HEAR classifier, found weights without {missing}: fine-tune it first."
        )
    return model.eval()


def export(model_name: str, output_dir: str, dtypes: list[str], calibration_data: str | None = None) -> None:
    """
    Writes a model in each of the `dtypes`, and prints their sizes, differences from PyTorch, and times.

    Args:
        model_name (`str`): A folder or a repository of the Hub with a HEAR classifier.
        output_dir (`str`): Where the files go; it is made if need be.
        dtypes (`list[str]`): Of "float32", "float16" and "int8".
        calibration_data (`str`, *optional*): A folder of audio files on which int8 finds its ranges.

    Raises:
        `ValueError`: if the model is no HEAR classifier, there is no audio to calibrate with, or a file's logits
            differ from PyTorch's by too much. Then that file is not written, and an older one stays as it was.
    """
    if calibration_data and "int8" not in dtypes:
        raise ValueError("--calibration_data is for --dtype int8, found without it: leave it out or add int8.")
    files = calibration_files(calibration_data) if calibration_data else None
    model = load(model_name)
    folder, config = Path(output_dir), model.config
    folder.mkdir(parents=True, exist_ok=True)

    clip, _ = ragged_batch((10,), config.sampling_rate)
    print(f"{'':10}       MiB   difference   ms for 10 s   ({torch.get_num_threads()} threads)")
    size = sum(parameter.numel() for parameter in model.parameters()) * 4 / 2**20
    with torch.no_grad():
        print(
            f"{'PyTorch':10}{size:10.1f}{'':13}{milliseconds(lambda: model(torch.from_numpy(clip))):14.1f}", flush=True
        )
    exported = to_onnx(model)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".export-") as scratch:
        for dtype in dtypes:
            path, graph = Path(scratch, FILES[dtype]), onnx.ModelProto()
            graph.CopyFrom(exported)
            write_variant(graph, dtype, path, files, config.sampling_rate)
            add_metadata(path, config, model_name)
            session = open_session(path)
            difference = largest_difference(session, model)
            if not difference <= TOLERANCES[dtype]:  # `not <=` catches NaN too
                raise ValueError(
                    f"The logits of the {dtype} model must be within {TOLERANCES[dtype]} of PyTorch's, in units of "
                    f"the largest, found {difference:.2g}: {FILES[dtype]} is not written. Take another --dtype."
                )
            duration = milliseconds(lambda session=session: session.run(None, model_inputs(clip)))
            size = path.stat().st_size / 2**20
            os.replace(path, folder / FILES[dtype])
            print(f"{dtype:10}{size:10.1f}{difference:13.1e}{duration:14.1f}   {folder / FILES[dtype]}", flush=True)
