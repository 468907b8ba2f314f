"""What the published speech_embedding holds, where it goes in our model, and what it computes.

The original is a TensorFlow Lite file for one window of 76 spectrogram frames: a chain of operators, whose kernels
have shape (out_channels, time, frequency, in_channels).
"""

from typing import Any

import torch
from torch.nn import functional as F

from checkpoint_files import StateDict
from teacher_models.modeling_speech_embedding import ACTIVATION_FLOOR, NEGATIVE_SLOPE, OUTPUT_KERNEL, STAGES
from tflite_file import Operator

PADDING = {0: "SAME", 1: "VALID"}  # as the schema numbers them
PLAIN = {"StrideH": 1, "StrideW": 1, "DilationHFactor": 1, "DilationWFactor": 1, "FusedActivationFunction": 0}
ACTIVATION = (f"LEAKY_RELU {NEGATIVE_SLOPE:g}", f"MAXIMUM {ACTIVATION_FLOOR:g}")


def describe(operator: Operator) -> str:
    """Words an operator without its weights, sizes as time x frequency: `CONV_2D 1x3 SAME`, `MAX_POOL_2D 2x2`."""
    options, values = operator.options, [value.tolist() for value in operator.constants if value.size < 16]
    match operator.kind:
        case "CONV_2D" if len(operator.constants) == 2 and operator.constants[0].ndim == 4:
            _, time, frequency, _ = operator.constants[0].shape
            details = [f"{time}x{frequency}", PADDING.get(options["Padding"], "?"), *unusual(options, PLAIN)]
        case "MAX_POOL_2D":
            time, frequency = options["FilterHeight"], options["FilterWidth"]
            usual = {"StrideH": time, "StrideW": frequency, "FusedActivationFunction": 0}
            details = [f"{time}x{frequency}", *unusual(options, usual)]
        case "LEAKY_RELU":
            details = [f"{options['Alpha']:g}"]
        case "MAXIMUM" if values and not isinstance(values[0], list):
            details = [f"{values[0]:g}"]
        case _:
            details = [str(value) for value in values]
    return " ".join([operator.kind, *details])


def unusual(options: dict[str, Any], usual: dict[str, int]) -> list[str]:
    return [f"{name}={options[name]}" for name, value in usual.items() if options[name] != value]


def expected_operators() -> list[str]:
    """Makes the chain of every model of this layout, as `describe` words it."""
    expected = ["PAD [[0, 0], [0, 0], [1, 1], [0, 0]]"]
    for kernels, (time, frequency) in STAGES:
        for kernel in kernels:
            expected += [describe_kernel(kernel, "SAME" if kernel == (1, 3) else "VALID"), *ACTIVATION]
        expected.append(f"MAX_POOL_2D {time}x{frequency}")
    return [*expected, describe_kernel(OUTPUT_KERNEL, "VALID")]


def describe_kernel(kernel: tuple[int, int], padding: str) -> str:
    return f"CONV_2D {kernel[0]}x{kernel[1]} {padding}"


def check_operators(operators: list[Operator]) -> None:
    """Refuses another model, and says which operator differs first."""
    expected, found = expected_operators(), [describe(operator) for operator in operators]
    for position, (wanted, given) in enumerate(zip(expected, found, strict=False)):
        if wanted != given:
            raise ValueError(
                f"The model must be speech_embedding, whose operator {position} is `{wanted}`, found: `{given}`."
            )
    if len(found) != len(expected):
        raise ValueError(f"The model must be speech_embedding, of {len(expected)} operators, found: {len(found)}.")


def to_state_dict(operators: list[Operator]) -> StateDict:
    """Gives the weights our names, and their axes PyTorch's order: (out, in, time, frequency)."""
    names = [f"stages.{i}.convolutions.{j}" for i, (kernels, _) in enumerate(STAGES) for j in range(len(kernels))]
    convolutions = [operator.constants for operator in operators if operator.kind == "CONV_2D"]
    state_dict = {}
    for name, (kernel, bias) in zip([*names, "output"], convolutions, strict=True):
        state_dict[f"{name}.weight"] = torch.tensor(kernel).permute(0, 3, 1, 2).contiguous()
        state_dict[f"{name}.bias"] = torch.tensor(bias)
    return state_dict


def read_sizes(state_dict: StateDict) -> dict:
    """Reads the sizes that the shapes show, by their names in the configuration."""
    stages = [state_dict[f"stages.{i}.convolutions.0.bias"].numel() for i in range(len(STAGES))]
    return {"conv_dim": stages, "hidden_size": state_dict["output.bias"].numel()}


def original_embedding(operators: list[Operator], log_mel: torch.Tensor) -> torch.Tensor:
    """Computes what the operators say, one after another.

    Args:
        operators (`list[Operator]`): The chain.
        log_mel (`torch.Tensor` of shape `(num_windows, window_frames, num_mel_bins)`): Windows of a spectrogram.

    Returns:
        `torch.Tensor` of shape `(num_windows, hidden_size)`.
    """
    hidden_states = log_mel[:, None]  # (B, T, M) -> (B, 1, T, M)
    for operator in operators:
        hidden_states = apply(operator, hidden_states)
    return hidden_states[:, :, 0, 0]


def apply(operator: Operator, x: torch.Tensor) -> torch.Tensor:
    constants = [torch.tensor(value).to(x.dtype) for value in operator.constants]
    options = operator.options
    match operator.kind:
        case "PAD":
            _, time, frequency, _ = operator.constants[0].tolist()
            return F.pad(x, (*frequency, *time))
        case "CONV_2D":
            padding = PADDING[options["Padding"]].lower()
            return F.conv2d(x, constants[0].permute(0, 3, 1, 2), constants[1], padding=padding)
        case "LEAKY_RELU":
            return F.leaky_relu(x, options["Alpha"])
        case "MAXIMUM":
            return torch.maximum(x, constants[0])
        case "MAX_POOL_2D":
            return F.max_pool2d(x, (options["FilterHeight"], options["FilterWidth"]))
    raise ValueError(f"The operator must be one of speech_embedding's, found: {operator.kind}.")
