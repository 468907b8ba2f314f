"""What the checkpoints of SSAST hold, where it goes in Transformers' AST, and what the original computes from it.

The original is https://github.com/YuanGongND/ssast, a distilled vision transformer of timm 0.4.5 on spectrograms. Our
names are those of AST checkpoints on the Hub, which every version of Transformers reads.

Shapes: B batch, M mel bins, P frames of a patch, T positions, N = 2 + T tokens, D hidden size, I intermediate size.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch.nn import functional as F

from checkpoint_files import StateDict

NUM_CLASS_TOKENS = 2  # of classification and of distillation
LAYER_NORM_EPS = 1e-6  # timm's

# (the original's tensor, ours, its shape)
EMBEDDINGS = (
    ("v.cls_token", "embeddings.cls_token", "11D"),
    ("v.dist_token", "embeddings.distillation_token", "11D"),
    ("v.pos_embed", "embeddings.position_embeddings", "1ND"),
    ("v.patch_embed.proj.weight", "embeddings.patch_embeddings.projection.weight", "D1MP"),
    ("v.patch_embed.proj.bias", "embeddings.patch_embeddings.projection.bias", "D"),
    ("v.norm.weight", "layernorm.weight", "D"),
    ("v.norm.bias", "layernorm.bias", "D"),
)
# (the original's module, ours, the shape of its weight)
BLOCK = (
    ("norm1", ("layernorm_before",), "D"),
    ("attn.qkv", tuple(f"attention.attention.{name}" for name in ("query", "key", "value")), "QD"),
    ("attn.proj", ("attention.output.dense",), "DD"),
    ("norm2", ("layernorm_after",), "D"),
    ("mlp.fc1", ("intermediate.dense",), "ID"),
    ("mlp.fc2", ("output.dense",), "DI"),
)
LEFT_OUT = {
    "p_input_": "a size of the input, which goes into the configuration",
    "cpredlayer.": "pretraining head that tells the masked patches apart",
    "gpredlayer.": "pretraining head that rebuilds the masked patches",
    "mask_embed": "stands for a masked patch in pretraining",
    "v.head.": "ImageNet classifier of timm, which SSAST never uses",
    "v.head_dist.": "ImageNet classifier of timm, which SSAST never uses",
}
OUTSIDE = "outside of the transformer `v`, so no part of its hidden states"


@dataclass(frozen=True)
class SSASTSizes:
    """All that is needed to build the model. The shapes show all of it but the number of heads."""

    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    intermediate_size: int
    num_mel_bins: int
    patch_frames: int
    num_positions: int

    @property
    def patch(self) -> str:
        """The patch's size, frequency by time, as the original writes it."""
        return f"{self.num_mel_bins}x{self.patch_frames}"

    @property
    def input_frames(self) -> int:
        """How many spectrogram frames of 10 ms the model reads at once."""
        return self.num_positions * self.patch_frames

    @property
    def max_length(self) -> int:
        """How many frames AST's square kernel needs to reach every position."""
        return self.input_frames + self.num_mel_bins - self.patch_frames


def find_left_out(keys: Iterable[str]) -> dict[str, str]:
    """Finds the keys that have no place in our model, and says why."""
    left_out = {}
    for key in keys:
        reason = next((reason for prefix, reason in LEFT_OUT.items() if key.startswith(prefix)), None)
        if reason or not key.startswith("v."):
            left_out[key] = reason or OUTSIDE
    return left_out


def count_layers(keys: Iterable[str]) -> int:
    """Counts the blocks of the transformer, at least one."""
    blocks = (re.match(r"v\.blocks\.([0-9]+)\.", key) for key in keys)
    return max(1, len({match.group(1) for match in blocks if match}))


def targets(num_layers: int) -> dict[str, tuple[tuple[str, ...], str]]:
    """Maps each of the original's tensors to ours, several where it is stacked, and to its shape in letters."""
    found: dict[str, tuple[tuple[str, ...], str]] = {theirs: ((ours,), shape) for theirs, ours, shape in EMBEDDINGS}
    for layer in range(num_layers):
        for theirs, ours, shape in BLOCK:
            for kind, letters in (("weight", shape), ("bias", shape[:1])):
                names = tuple(f"encoder.layer.{layer}.{name}.{kind}" for name in ours)
                found[f"v.blocks.{layer}.{theirs}.{kind}"] = names, letters
    return found


def original_shapes(sizes: SSASTSizes) -> dict[str, tuple[int, ...]]:
    """Gives the shapes of the original's tensors in a model of these sizes."""
    values = {
        "1": 1,
        "D": sizes.hidden_size,
        "I": sizes.intermediate_size,
        "M": sizes.num_mel_bins,
        "N": sizes.num_positions + NUM_CLASS_TOKENS,
        "P": sizes.patch_frames,
        "Q": 3 * sizes.hidden_size,
    }
    expected = targets(sizes.num_hidden_layers)
    return {theirs: tuple(values[letter] for letter in letters) for theirs, (_, letters) in expected.items()}


def to_ast(original: StateDict, sizes: SSASTSizes) -> StateDict:
    """Renames and reshapes the tensors to AST's."""
    converted: StateDict = {}
    for theirs, (ours, _) in targets(sizes.num_hidden_layers).items():
        parts = original[theirs].chunk(len(ours))
        converted.update((name, part.clone().contiguous()) for name, part in zip(ours, parts, strict=True))
    # AST's kernel is square. Zero columns add nothing to any sum, so the patch embeddings stay what they are.
    kernel = "embeddings.patch_embeddings.projection.weight"
    converted[kernel] = F.pad(converted[kernel], (0, sizes.num_mel_bins - sizes.patch_frames))
    return converted


def original_hidden_states(original: StateDict, input_values: torch.Tensor, sizes: SSASTSizes) -> torch.Tensor:
    """Computes what HEAR's teacher gives: the states behind the final norm, without the class tokens.

    Args:
        original (`dict[str, torch.Tensor]`): The checkpoint's tensors.
        input_values (`torch.Tensor` of shape `(batch_size, input_frames, num_mel_bins)`): Normalised spectrograms.
        sizes (`SSASTSizes`): The model's sizes.

    Returns:
        `torch.Tensor` of shape `(batch_size, num_positions, hidden_size)`.
    """

    def linear(name: str, x: torch.Tensor) -> torch.Tensor:
        return F.linear(x, original[f"{name}.weight"], original[f"{name}.bias"])

    def norm(name: str, x: torch.Tensor) -> torch.Tensor:
        return F.layer_norm(x, x.shape[-1:], original[f"{name}.weight"], original[f"{name}.bias"], LAYER_NORM_EPS)

    def attention(name: str, x: torch.Tensor) -> torch.Tensor:
        q, k, v = linear(f"{name}.qkv", x).unflatten(-1, (3, sizes.num_attention_heads, -1)).permute(2, 0, 3, 1, 4)
        probs = (q @ k.transpose(-2, -1) / q.shape[-1] ** 0.5).softmax(-1)
        return linear(f"{name}.proj", (probs @ v).transpose(1, 2).flatten(2))  # (B, heads, T, d) -> (B, T, D)

    kernel = original["v.patch_embed.proj.weight"]
    bias = original["v.patch_embed.proj.bias"]
    x = F.conv2d(input_values.transpose(1, 2)[:, None], kernel, bias, stride=kernel.shape[2:])  # (B, D, 1, T)
    tokens = (original[name].expand(len(x), -1, -1) for name in ("v.cls_token", "v.dist_token"))
    x = torch.cat([*tokens, x.flatten(2).transpose(1, 2)], dim=1) + original["v.pos_embed"]
    for block in (f"v.blocks.{layer}" for layer in range(sizes.num_hidden_layers)):
        x = x + attention(f"{block}.attn", norm(f"{block}.norm1", x))
        x = x + linear(f"{block}.mlp.fc2", F.gelu(linear(f"{block}.mlp.fc1", norm(f"{block}.norm2", x))))
    return norm("v.norm", x)[:, NUM_CLASS_TOKENS:]
