"""The runtimes that are compared: how each reads a classifier, what is exported for it, and what installs it."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import nn

from contestants import SAMPLING_RATE, Contestant, extraction
from hear_hf import HEARFeatureExtractor, HEARForAudioClassification
from hear_hf.deployment.onnx_dtypes import calibration_files
from hear_hf.deployment.onnx_export import export_file, exported_files
from hear_hf.deployment.onnx_graph import to_onnx
from hear_hf.deployment.onnx_session import Runner, model_inputs, runner
from hear_hf.deployment.openvino_export import export_ir
from hear_hf.deployment.openvino_session import exported_irs, ir_runner
from hear_hf.exports import Classifier, load_classifier
from hear_hf.static_graph import StaticClassifier


@dataclass
class Ready(Contestant):
    """A contestant whose type is chosen already."""

    def to(self, device: str, dtype: torch.dtype) -> "Ready":
        return self


class Exported(nn.Module):
    """An exported file in the place of a model; `open_file` is given the number of samples of a clip."""

    def __init__(self, open_file: Callable[[int], Runner]):
        super().__init__()
        self.open_file = cache(open_file)

    def forward(self, input_values: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        inputs = model_inputs(input_values.numpy(), attention_mask.numpy())
        return torch.from_numpy(self.open_file(input_values.shape[1])(inputs))


# How each is loaded from a folder, which holds the model in `model` and beside it what `Library.export` wrote.


def pytorch(dtype: torch.dtype, folder: Path) -> nn.Module:
    return HEARForAudioClassification.from_pretrained(folder / "model", dtype=dtype)


class PackedLinear(nn.Module):
    """A linear layer that arranges its weights once, for so many rows; docs/deployment.md shows it to users."""

    def __init__(self, linear: nn.Linear, num_rows: int):
        super().__init__()
        self.bias = linear.bias
        self.weight = torch.ops.mkldnn._reorder_linear_weight(linear.weight.detach(), num_rows)

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        return torch.ops.mkldnn._linear_pointwise(rows, self.weight, self.bias, "none", [], "")


def pytorch_packed(folder: Path) -> nn.Module:
    def open_file(num_samples: int) -> Runner:
        model = load_classifier(str(folder / "model"))
        for name, layer in list(model.named_modules()):
            if type(layer) is nn.Linear:
                model.set_submodule(name, PackedLinear(layer, num_samples // model.config.inputs_to_logits_ratio))
        return lambda inputs: model(**{name: torch.from_numpy(array) for name, array in inputs.items()}).logits.numpy()

    return Exported(open_file)


def onnx(dtype: str, folder: Path) -> nn.Module:
    run = runner(exported_files(folder)[dtype])
    return Exported(lambda num_samples: run)


def openvino(dtype: str, folder: Path) -> nn.Module:
    run = ir_runner(exported_irs(folder)[dtype])
    return Exported(lambda num_samples: run)


def openvino_of_one_length(dtype: str, folder: Path) -> nn.Module:
    return Exported(partial(ir_runner, exported_irs(folder)[dtype]))


def executorch(dtype: str, folder: Path) -> nn.Module:
    from hear_hf.mobile.executorch_session import open_program, program_path

    def open_file(num_samples: int) -> Runner:
        run = open_program(program_path(folder, num_samples / SAMPLING_RATE, dtype))
        return lambda inputs: run(torch.from_numpy(inputs["input_values"])).numpy()

    return Exported(open_file)


def litert(folder: Path) -> nn.Module:
    from ai_edge_litert.interpreter import Interpreter

    def open_file(num_samples: int) -> Runner:
        path = litert_path(folder, num_samples / SAMPLING_RATE)
        run = Interpreter(str(path), num_threads=torch.get_num_threads()).get_signature_runner()
        return lambda inputs: run(args_0=inputs["input_values"])["output_0"]

    return Exported(open_file)


def litert_path(folder: Path, seconds: float) -> Path:
    return folder / f"model_{seconds:g}s.tflite"


# What is written into that folder, unless it is there: a file for each of `seconds` where it reads one length alone.


def export_onnx(model: Classifier, folder: Path, seconds: list[float], calibration_data: str) -> None:
    if missing := {"float32", "int8"} - {*exported_files(folder)}:
        graph = to_onnx(model)
        for dtype in missing:
            export_file(graph, dtype, model, folder)


def export_openvino(model: Classifier, folder: Path, seconds: list[float], calibration_data: str) -> None:
    if missing := {"float32", "float16", "int8"} - {*exported_irs(folder)}:
        graph, clips = to_onnx(model), calibration_files(calibration_data)
        for dtype in missing:
            export_ir(graph, dtype, model, folder, clips)


def export_executorch(model: Classifier, folder: Path, seconds: list[float], calibration_data: str) -> None:
    from hear_hf.mobile.executorch_export import DTYPES, export_program
    from hear_hf.mobile.executorch_session import program_path

    for length in seconds:
        for dtype in DTYPES:
            if not program_path(folder, length, dtype).exists():
                export_program(model, length, dtype, folder)


def export_litert(model: Classifier, folder: Path, seconds: list[float], calibration_data: str) -> None:
    import litert_torch

    for length in seconds:
        if not (path := litert_path(folder, length)).exists():
            num_samples = round(length * SAMPLING_RATE)
            static = StaticClassifier(model, num_samples)
            litert_torch.convert(static, (torch.zeros(1, num_samples),)).export(str(path))


@dataclass(frozen=True)
class Library:
    """What runs files: what `pip install` takes for it, its modules, and what writes the files."""

    install: str
    modules: tuple[str, ...]
    export: Callable[[Classifier, Path, list[float], str], None] | None = None

    def is_installed(self) -> bool:
        return all(find_spec(module.partition(".")[0]) for module in self.modules)


PYTORCH = Library("hear_hf", ("torch",))
ONNX = Library("hear_hf[onnx]", ("onnxruntime",), export_onnx)
OPENVINO = Library("hear_hf[openvino]", ("openvino", "nncf"), export_openvino)
EXECUTORCH = Library("hear_hf[executorch]", ("executorch.runtime",), export_executorch)
LITERT = Library("litert-torch", ("ai_edge_litert.interpreter", "litert_torch"), export_litert)


@dataclass(frozen=True)
class Runtime:
    """A library and a type: what it is called in the table, and what loads it from a folder."""

    label: str
    library: Library
    load: Callable[[Path], nn.Module]

    def contestant(self, folder: Path) -> Contestant:
        torch.set_num_threads(1)  # before a file is opened, which is then run on as many
        return Ready(self.load(folder), extraction(HEARFeatureExtractor()))


RUNTIMES = {
    "pytorch": Runtime("PyTorch float32", PYTORCH, partial(pytorch, torch.float32)),
    "pytorch_packed": Runtime("PyTorch float32, weights packed once", PYTORCH, pytorch_packed),
    "pytorch_bfloat16": Runtime("PyTorch bfloat16", PYTORCH, partial(pytorch, torch.bfloat16)),
    "onnx": Runtime("ONNX Runtime float32", ONNX, partial(onnx, "float32")),
    "onnx_int8": Runtime("ONNX Runtime int8", ONNX, partial(onnx, "int8")),
    "openvino": Runtime("OpenVINO float32", OPENVINO, partial(openvino, "float32")),
    "openvino_float16": Runtime("OpenVINO float16", OPENVINO, partial(openvino, "float16")),
    "openvino_int8": Runtime("OpenVINO int8", OPENVINO, partial(openvino, "int8")),
    "openvino_fixed": Runtime("OpenVINO float32, one length", OPENVINO, partial(openvino_of_one_length, "float32")),
    "openvino_float16_fixed": Runtime(
        "OpenVINO float16, one length", OPENVINO, partial(openvino_of_one_length, "float16")
    ),
    "openvino_int8_fixed": Runtime("OpenVINO int8, one length", OPENVINO, partial(openvino_of_one_length, "int8")),
    "executorch": Runtime("ExecuTorch float32, one length", EXECUTORCH, partial(executorch, "float32")),
    "executorch_int8": Runtime("ExecuTorch int8, one length", EXECUTORCH, partial(executorch, "int8")),
    "litert": Runtime("LiteRT float32, one length", LITERT, litert),
}
