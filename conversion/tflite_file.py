"""Reads the operators of a TensorFlow Lite file, and their constants, without running it."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from checkpoint_files import one_line
from hear_hf.extras import require

IDENTIFIER = b"TFL3"  # behind the first four bytes of every such file
# Options that are read, by the names of the schema.
OPTIONS = {
    "CONV_2D": (
        "Conv2DOptions",
        ("Padding", "StrideH", "StrideW", "DilationHFactor", "DilationWFactor", "FusedActivationFunction"),
    ),
    "MAX_POOL_2D": ("Pool2DOptions", ("FilterHeight", "FilterWidth", "StrideH", "StrideW", "FusedActivationFunction")),
    "LEAKY_RELU": ("LeakyReluOptions", ("Alpha",)),
}
DTYPES = {"FLOAT32": np.float32, "INT32": np.int32}


@dataclass(frozen=True)
class Operator:
    """One step of a chain: what it does to the output of the step before.

    Args:
        kind (`str`): Its name in the schema, for example `CONV_2D`.
        constants (`tuple[np.ndarray, ...]`): Its other inputs.
        options (`dict[str, Any]`): Those of `OPTIONS`.
    """

    kind: str
    constants: tuple[np.ndarray, ...] = ()
    options: dict[str, Any] = field(default_factory=dict)


def read_operators(path: Path) -> list[Operator]:
    """Reads the steps from the one input of a model to its one output.

    Raises:
        `ImportError`: The package `tflite` is not installed.
        `ValueError`: The file cannot be read, or is no chain of operators with float32 constants.
    """
    require("conversion/convert_speech_embedding.py", "conversion", "tflite")
    if not path.is_file():
        raise ValueError(f"`{path}` must be a file, found: {'a folder' if path.is_dir() else 'nothing'}.")
    content = path.read_bytes()
    if content[4:8] != IDENTIFIER:
        raise ValueError(f"`{path}` must be a TensorFlow Lite file, which says {IDENTIFIER!r}, found another.")
    try:
        return _Reader(content).operators()
    except Exception as error:  # ours, and whatever indexing by broken offsets raises
        raise ValueError(
            f"`{path}` must hold an intact chain of operators in float32, found: {one_line(error)}"
        ) from error


class _Reader:
    """Walks the tables of a file. Its errors say what was found."""

    def __init__(self, content: bytes):
        import tflite

        self.schema = tflite
        self.model = tflite.Model.GetRootAs(content, 0)
        self.graph = self.model.Subgraphs(0)

    def operators(self) -> list[Operator]:
        ends = (self.model.SubgraphsLength(), self.graph.InputsLength(), self.graph.OutputsLength())
        if ends != (1, 1, 1):
            raise ValueError("{} graphs, with {} inputs and {} outputs.".format(*ends))
        at, operators = self.graph.Inputs(0), []
        for position in range(self.graph.OperatorsLength()):
            operator = self.graph.Operators(position)
            inputs = [operator.Inputs(i) for i in range(operator.InputsLength())]
            if not inputs or inputs[0] != at or operator.OutputsLength() != 1:
                raise ValueError(f"a branch at operator {position}.")
            operators.append(self.operator(operator, inputs[1:]))
            at = operator.Outputs(0)
        if at != self.graph.Outputs(0):
            raise ValueError("an output that is not the last operator's.")
        return operators

    def operator(self, operator, constants: list[int]) -> Operator:
        code = self.model.OperatorCodes(operator.OpcodeIndex())
        kind = self.name_of("BuiltinOperator", max(code.BuiltinCode(), code.DeprecatedBuiltinCode()))
        options = {}
        if kind in OPTIONS:
            table, names = OPTIONS[kind]
            found, union = getattr(self.schema, table)(), operator.BuiltinOptions()
            found.Init(union.Bytes, union.Pos)
            options = {name: getattr(found, name)() for name in names}
        return Operator(kind, tuple(map(self.constant, constants)), options)

    def constant(self, index: int) -> np.ndarray:
        tensor = self.graph.Tensors(index)
        name, shape = tensor.Name().decode(), [tensor.Shape(i) for i in range(tensor.ShapeLength())]
        kind = self.name_of("TensorType", tensor.Type())
        values = self.model.Buffers(tensor.Buffer()).DataAsNumpy()
        if kind not in DTYPES:
            raise ValueError(f"`{name}` of {kind}: a quantised model.")
        if not isinstance(values, np.ndarray):
            raise ValueError(f"`{name}` without values.")
        return np.frombuffer(values.tobytes(), DTYPES[kind]).reshape(shape)

    def name_of(self, enumeration: str, value: int) -> str:
        members = vars(getattr(self.schema, enumeration)).items()
        return next((name for name, number in members if number == value and name.isupper()), str(value))
