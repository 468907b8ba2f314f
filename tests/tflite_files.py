"""Writes small TensorFlow Lite files: chains of operators, as `conversion/tflite_file.py` reads them."""

from pathlib import Path

import flatbuffers
import numpy as np
import tflite

from tflite_file import OPTIONS, Operator

TYPES = {np.dtype(np.float32): tflite.TensorType.FLOAT32, np.dtype(np.int32): tflite.TensorType.INT32}


def write_tflite(path: Path, operators: list[Operator], types=TYPES, num_outputs: int = 1) -> Path:
    """Writes a chain of operators. Tensors of one graph: its input, then each operator's constants and its output."""
    builder = flatbuffers.Builder(0)
    buffers, tensors, chain, codes = [table(builder, "Buffer")], [], [], []

    def tensor(name: str, value: np.ndarray | None = None) -> int:
        label, shape, buffer = builder.CreateString(name), integers(builder, [] if value is None else value.shape), 0
        if value is not None:
            data = builder.CreateByteVector(np.ascontiguousarray(value).tobytes())
            buffers.append(table(builder, "Buffer", Data=data))
            buffer = len(buffers) - 1
        kind = tflite.TensorType.FLOAT32 if value is None else types[value.dtype]
        tensors.append(table(builder, "Tensor", Name=label, Shape=shape, Buffer=buffer, Type=kind))
        return len(tensors) - 1

    at = tensor("input")
    for position, operator in enumerate(operators):
        inputs = [at, *(tensor(f"{position}.{i}", value) for i, value in enumerate(operator.constants))]
        at, fields = tensor(f"{position}"), {}
        if operator.kind in OPTIONS:
            options, _ = OPTIONS[operator.kind]
            fields["BuiltinOptions"] = table(builder, options, **operator.options)
            fields["BuiltinOptionsType"] = getattr(tflite.BuiltinOptions, options)
        codes.append(operator.kind)
        ends = {"Inputs": integers(builder, inputs), "Outputs": integers(builder, [at])}
        chain.append(table(builder, "Operator", OpcodeIndex=position, **ends, **fields))

    ends = {"Inputs": integers(builder, [0]), "Outputs": integers(builder, [at] * num_outputs)}
    graph = table(builder, "SubGraph", Tensors=offsets(builder, tensors), Operators=offsets(builder, chain), **ends)
    numbers = [getattr(tflite.BuiltinOperator, kind) for kind in codes]
    codes = [table(builder, "OperatorCode", DeprecatedBuiltinCode=number, BuiltinCode=number) for number in numbers]
    lists = {"OperatorCodes": codes, "Subgraphs": [graph], "Buffers": buffers}
    lists = {name: offsets(builder, values) for name, values in lists.items()}
    builder.Finish(table(builder, "Model", Version=3, **lists), b"TFL3")
    path.write_bytes(bytes(builder.Output()))
    return path


def table(builder: flatbuffers.Builder, name: str, **fields) -> int:
    getattr(tflite, f"{name}Start")(builder)
    for field, value in fields.items():
        getattr(tflite, f"{name}Add{field}")(builder, value)
    return getattr(tflite, f"{name}End")(builder)


def integers(builder: flatbuffers.Builder, values) -> int:
    return builder.CreateNumpyVector(np.array(values, dtype=np.int32))


def offsets(builder: flatbuffers.Builder, values: list[int]) -> int:
    builder.StartVector(4, len(values), 4)
    for value in reversed(values):
        builder.PrependUOffsetTRelative(value)
    return builder.EndVector()
