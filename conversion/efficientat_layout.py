"""What the checkpoints of EfficientAT hold, where it goes in our model, and what the original computes with it.

The original is https://github.com/fschmid56/EfficientAT: MobileNetV3-Large of torchvision on mel spectrograms, whose
layers are numbered within `nn.Sequential`s.

Shapes: B batch, C channels, M mel bins, T frames.
"""

from typing import Any

import torch
from torch.nn import functional as F

from checkpoint_files import StateDict
from teacher_models import EfficientATForAudioClassification
from teacher_models.modeling_efficientat import BLOCKS, EfficientATBlock, EfficientATConvolution

STEM, LAST = "features.0", f"features.{len(BLOCKS) + 1}"
HEAD, LOGITS = "classifier.2", "classifier.5"
BATCH_NORM, BATCH_NORM_EPS = ("running_mean", "running_var", "weight", "bias"), 1e-3
REFERENCE_WIDTH = 1280  # of the classification head of mn10, a multiple of 8 in every published size
SQUEEZE_EXCITATION = {"squeeze": "conc_se_layers.0.fc1", "excite": "conc_se_layers.0.fc2"}


def original_names(model: EfficientATForAudioClassification) -> dict[str, str]:
    """Names each of our tensors as the original does."""
    modules = {"classifier.dense": HEAD, "classifier.out_proj": LOGITS}
    for i, layer in enumerate(model.efficientat.layers):
        ours, theirs = f"efficientat.layers.{i}", f"features.{i}"
        modules |= convolution_names(ours, theirs) if isinstance(layer, EfficientATConvolution) else {}
        modules |= block_names(layer, ours, theirs) if isinstance(layer, EfficientATBlock) else {}
    split = {name: name.rpartition(".") for name in model.state_dict()}
    return {name: f"{modules[module]}.{tensor}" for name, (module, _, tensor) in split.items()}


def convolution_names(ours: str, theirs: str) -> dict[str, str]:
    return {f"{ours}.convolution": f"{theirs}.0", f"{ours}.norm": f"{theirs}.1"}


def block_names(block: EfficientATBlock, ours: str, theirs: str) -> dict[str, str]:
    """Counts the parts that a block has, as the original does."""
    names: dict[str, str] = {}
    for position, (part, module) in enumerate(block.named_children()):
        place = f"{theirs}.block.{position}"
        if isinstance(module, EfficientATConvolution):
            names |= convolution_names(f"{ours}.{part}", place)
        else:
            names |= {f"{ours}.{part}.{name}": f"{place}.{layer}" for name, layer in SQUEEZE_EXCITATION.items()}
    return names


def read_sizes(original: StateDict) -> dict[str, Any]:
    """Reads the sizes that the shapes show, by their names in the configuration.

    Raises:
        `ValueError`: The checkpoint is no EfficientAT with the published head.
    """
    shapes = {name: tuple(getattr(original.get(f"{name}.weight"), "shape", ())) for name in (HEAD, LOGITS)}
    if f"{STEM}.0.weight" not in original or any(len(shape) != 2 or 0 in shape for shape in shapes.values()):
        found = ", ".join(f"`{part}`" for part in sorted({key.rpartition(".")[0] for key in original})[:8])
        raise ValueError(
            f"The checkpoint must be an EfficientAT with two linear layers for a head, which holds `{STEM}.0.weight`, "
            f"`{HEAD}.weight` and `{LOGITS}.weight`; found modules: {found}, ... Take one whose name starts with "
            "`mn`, without `fc`."
        )
    return {"width_mult": shapes[HEAD][0] / REFERENCE_WIDTH, "num_labels": shapes[LOGITS][0]}


def original_outputs(original: StateDict, log_mel: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Computes what the original's forward pass does, from its own tensors.

    Args:
        original (`dict[str, torch.Tensor]`): The checkpoint's tensors.
        log_mel (`torch.Tensor` of shape `(batch_size, num_mel_bins, num_frames)`): Normalised spectrograms.

    Returns:
        embedding `(batch_size, hidden_size)` and logits `(batch_size, num_labels)`.
    """

    def convolution(name: str, x: torch.Tensor, stride: int = 1, activation=lambda x: x) -> torch.Tensor:
        kernel = original[f"{name}.0.weight"]
        groups = x.shape[1] // kernel.shape[1]
        x = F.conv2d(x, kernel, stride=stride, padding=kernel.shape[-1] // 2, groups=groups)
        mean, var, weight, bias = (original[f"{name}.1.{key}"] for key in BATCH_NORM)
        return activation(F.batch_norm(x, mean, var, weight, bias, eps=BATCH_NORM_EPS))

    def linear(name: str, x: torch.Tensor) -> torch.Tensor:
        return F.linear(x, original[f"{name}.weight"], original[f"{name}.bias"])

    def block(name: str, x: torch.Tensor, stride: int, activation) -> torch.Tensor:
        parts = sorted({int(key.split(".")[3]) for key in original if key.startswith(f"{name}.block.")})
        residual = x
        for part in (f"{name}.block.{number}" for number in parts[:-1]):
            if f"{part}.0.weight" in original:
                is_depthwise = original[f"{part}.0.weight"].shape[-1] > 1
                x = convolution(part, x, stride if is_depthwise else 1, activation)
            else:
                squeezed = linear(f"{part}.conc_se_layers.0.fc1", x.mean((2, 3))).relu()
                x = x * linear(f"{part}.conc_se_layers.0.fc2", squeezed).sigmoid()[:, :, None, None]
        x = convolution(f"{name}.block.{parts[-1]}", x)
        return x + residual if x.shape == residual.shape else x

    x = convolution(STEM, log_mel[:, None], 2, F.hardswish)
    for i, (*_, activation, stride) in enumerate(BLOCKS, 1):
        x = block(f"features.{i}", x, stride, getattr(F, activation))
    embedding = convolution(LAST, x, activation=F.hardswish).mean((2, 3))
    return embedding, linear(LOGITS, F.hardswish(linear(HEAD, embedding)))
