"""Converts SSAST-Base-Frame-400, the teacher of HEAR's quantizer, into a folder that `from_pretrained` loads.

    python conversion/convert_ssast_teacher.py SSAST-Base-Frame-400.pth ssast_teacher
    python examples/train_quantizer.py --teacher_name_or_path ssast_teacher

The folder is a plain AST of Transformers: it needs no code of its own, no clone of another repository and no timm. Any
frame-based checkpoint of SSAST will do. Nothing in the checkpoint is executed, nothing is downloaded, and a folder is
kept only if it loads again and computes what the original computes.
"""

import hashlib
import warnings
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import ASTConfig, ASTFeatureExtractor, AutoFeatureExtractor, AutoModel

from checkpoint_files import StateDict, check_names, check_shapes, check_tensor, read_checkpoint
from hear_hf.arguments import command_parser, option
from output_files import check_output, put_in_place, quiet
from ssast_layout import (
    LAYER_NORM_EPS,
    NUM_CLASS_TOKENS,
    SSASTSizes,
    count_layers,
    find_left_out,
    original_hidden_states,
    original_shapes,
    targets,
    to_ast,
)
from ssast_report import SSASTReport

SAMPLING_RATE = 16_000
HOP_LENGTH = 160  # 10 ms
MEAN, STD = -4.2677393, 4.5689974  # of AudioSet's spectrograms; SSAST divides by twice the deviation, as AST does
HEAD_DIM = 64  # of every published size: 192 = 3 heads, 384 = 6, 768 = 12
TOLERANCE = 1e-9  # relative, in float64, where the same sums in another order differ by some 1e-15

KERNEL, POSITIONS, WIDTH = "v.patch_embed.proj.weight", "v.pos_embed", "v.blocks.0.mlp.fc1.weight"


def convert(
    checkpoint: str | Path,
    output_dir: str | Path,
    *,
    num_attention_heads: int | None = None,
    force: bool = False,
) -> SSASTReport:
    """Converts a frame-based checkpoint of SSAST into a folder that `AutoModel` and `AutoFeatureExtractor` load.

    Args:
        checkpoint (`str` or `Path`): The file that the original saved after pretraining.
        output_dir (`str` or `Path`): The folder to write.
        num_attention_heads (`int`, *optional*): Heads per layer, which no checkpoint shows; one per 64 of the hidden
            size by default.
        force (`bool`, *optional*, defaults to `False`): Whether to replace a folder that is not empty.

    Returns:
        [`SSASTReport`]: What was found, and how it was converted.

    Raises:
        `ValueError`: The file is no frame-based SSAST; something in it is missing, unknown, of another shape or dtype,
            or not finite; or the folder may not be written.
    """
    checkpoint, output_dir = Path(checkpoint).resolve(), Path(output_dir).resolve()
    check_output(output_dir, checkpoint, force)
    original = read_checkpoint(checkpoint)
    left_out = find_left_out(original)
    kept = check_contents(original, left_out)
    sizes = read_sizes(original, num_attention_heads)
    check_shapes(kept, original_shapes(sizes), f"Read: {sizes}.")

    state_dict = to_ast(kept, sizes)
    report = SSASTReport(
        sizes=sizes,
        heads_are_assumed=num_attention_heads is None,
        left_out=left_out,
        num_parameters=sum(tensor.numel() for tensor in kept.values()),
        sha256=hashlib.sha256(checkpoint.read_bytes()).hexdigest(),
        output_dir=output_dir,
    )
    with quiet(), warnings.catch_warnings(), torch.random.fork_rng(devices=[]), put_in_place(output_dir) as folder:
        warnings.filterwarnings("ignore", "At least one mel filter has all zero values")  # so it is in Kaldi, too
        write_folder(state_dict, sizes, folder)
        report.max_difference = verify(kept, sizes, folder)
        (folder / "README.md").write_text(report.model_card(checkpoint.name), encoding="utf-8")
    return report


def check_contents(original: StateDict, left_out: dict[str, str]) -> StateDict:
    """Checks the keys and the values, and returns the tensors to convert."""
    kept = {key: tensor for key, tensor in original.items() if key not in left_out}
    if KERNEL not in kept or POSITIONS not in kept:
        found = ", ".join(f"`{part}`" for part in sorted({key.partition(".")[0] for key in original})[:20])
        raise ValueError(
            f"The checkpoint must be one of SSAST's, which hold `{KERNEL}` and `{POSITIONS}`; found keys that start "
            f"with: {found}."
        )
    check_patch(original)
    check_names("The SSAST", kept, list(targets(count_layers(kept))))
    for key, tensor in kept.items():
        check_tensor(key, tensor)
    return kept


def check_patch(original: StateDict) -> None:
    """Refuses patch-based models, whose tokens are no frames. It comes first, as the most likely mistake."""
    shape = tuple(getattr(original[KERNEL], "shape", ()))
    num_mel_bins = read_scalar(original, "p_input_fdim")
    if len(shape) != 4 or 0 in shape:
        raise ValueError(f"`{KERNEL}` must have 4 axes, found the shape: {shape}.")
    if shape[2] != num_mel_bins or shape[3] > num_mel_bins:
        raise ValueError(
            f"The SSAST must be frame-based: its patches must span all {num_mel_bins} mel bins and few frames, found "
            f"patches of {shape[2]}x{shape[3]}. Take SSAST-Base-Frame-400, not a patch-based one (SSAST-*-Patch-*)."
        )


def read_scalar(original: StateDict, key: str) -> int:
    value = original.get(key)
    if not isinstance(value, torch.Tensor) or value.numel() != 1 or not 0 < float(value) < 1e6:
        found = "none" if value is None else "another value"
        raise ValueError(
            f"`{key}` must be one positive number, as in SSAST's pretraining checkpoints, found: {found}."
        )
    return int(value)


def read_sizes(original: StateDict, num_attention_heads: int | None) -> SSASTSizes:
    """Reads the sizes from the shapes, and adds the number of heads."""
    for key, num_axes in ((POSITIONS, 3), (WIDTH, 2)):
        if original[key].dim() != num_axes:
            raise ValueError(f"`{key}` must have {num_axes} axes, found the shape: {tuple(original[key].shape)}.")
    hidden_size, _, num_mel_bins, patch_frames = original[KERNEL].shape
    num_positions = original[POSITIONS].shape[1] - NUM_CLASS_TOKENS
    input_frames = read_scalar(original, "p_input_tdim")
    if num_positions != input_frames // patch_frames:
        raise ValueError(
            f"`{POSITIONS}` must hold {NUM_CLASS_TOKENS} class tokens and {input_frames // patch_frames} positions, "
            f"for {input_frames} frames in patches of {patch_frames}, found: {original[POSITIONS].shape[1]} in all."
        )
    return SSASTSizes(
        hidden_size=hidden_size,
        num_hidden_layers=count_layers(original),
        num_attention_heads=count_heads(hidden_size, num_attention_heads),
        intermediate_size=original[WIDTH].shape[0],
        num_mel_bins=num_mel_bins,
        patch_frames=patch_frames,
        num_positions=num_positions,
    )


def count_heads(hidden_size: int, num_attention_heads: int | None) -> int:
    if num_attention_heads is None and hidden_size % HEAD_DIM:
        raise ValueError(
            f"`num_attention_heads` must be given: the published models have one per {HEAD_DIM} of the hidden size, "
            f"found a hidden size of {hidden_size}."
        )
    heads = hidden_size // HEAD_DIM if num_attention_heads is None else num_attention_heads
    if heads < 1 or hidden_size % heads:
        raise ValueError(f"`num_attention_heads` must divide the hidden size {hidden_size}, found: {heads}.")
    return heads


def write_folder(state_dict: StateDict, sizes: SSASTSizes, folder: Path) -> None:
    """Writes what `save_pretrained` would, in the names that all versions of Transformers read."""
    config = ASTConfig(
        architectures=["ASTModel"],
        hidden_size=sizes.hidden_size,
        num_hidden_layers=sizes.num_hidden_layers,
        num_attention_heads=sizes.num_attention_heads,
        intermediate_size=sizes.intermediate_size,
        hidden_act="gelu",
        qkv_bias=True,
        layer_norm_eps=LAYER_NORM_EPS,
        num_mel_bins=sizes.num_mel_bins,
        patch_size=sizes.num_mel_bins,
        frequency_stride=sizes.num_mel_bins,
        time_stride=sizes.patch_frames,
        max_length=sizes.max_length,
        dtype="float32",
    )
    config.save_pretrained(folder)
    save_file(state_dict, folder / "model.safetensors", metadata={"format": "pt"})
    ASTFeatureExtractor(
        sampling_rate=SAMPLING_RATE,
        num_mel_bins=sizes.num_mel_bins,
        max_length=sizes.max_length,
        mean=MEAN,
        std=STD,
    ).save_pretrained(folder)


@torch.no_grad()
def verify(original: StateDict, sizes: SSASTSizes, folder: Path) -> float:
    """Loads the folder, compares it with the original's computation, and returns the largest relative difference.

    It computes in float64, where only another computation can differ, whatever the weights are.
    """
    model, info = AutoModel.from_pretrained(folder, local_files_only=True, output_loading_info=True)
    strays = [key for name in ("missing_keys", "unexpected_keys", "mismatched_keys") for key in info[name]]
    if strays:
        raise ValueError(
            f"The folder must hold the tensors of the model, found others: {', '.join(map(str, strays))}."
        )
    feature_extractor = AutoFeatureExtractor.from_pretrained(folder, local_files_only=True)
    # Half of the input is padding.
    waveform = 0.1 * torch.randn(sizes.input_frames * HOP_LENGTH // 2, generator=torch.Generator().manual_seed(0))
    inputs = feature_extractor(waveform.numpy(), sampling_rate=SAMPLING_RATE, return_tensors="pt")
    input_values = inputs["input_values"].double()
    found = model.double()(input_values).last_hidden_state[:, NUM_CLASS_TOKENS:]
    original = {key: tensor.double() for key, tensor in original.items()}
    expected = original_hidden_states(original, input_values[:, : sizes.input_frames], sizes)
    difference = ((found - expected).abs().max() / expected.abs().max()).item()
    if not difference <= TOLERANCE:
        raise ValueError(
            f"The folder must compute what the checkpoint does, found a relative difference of {difference:.1e}. "
            "Nothing was written. Please report it with the version of Transformers."
        )
    return difference


@dataclass
class ConversionArguments:
    """What the checkpoint does not show, and whether to replace a folder."""

    num_attention_heads: int | None = option(
        default=None, help="Heads per layer, which no checkpoint shows. Without it, one per 64 of the hidden size."
    )
    force: bool = option(default=False, help="Replace what is already at the target.")


def main(argv: list[str] | None = None) -> None:
    parser = command_parser(ConversionArguments, __doc__)
    parser.add_argument("checkpoint", help="The original's file, SSAST-Base-Frame-400.pth.")
    parser.add_argument("output_dir", help="The folder to write.")
    args, paths = parser.parse_args_into_dataclasses(argv)
    try:
        heads = args.num_attention_heads
        print(convert(paths.checkpoint, paths.output_dir, num_attention_heads=heads, force=args.force))
    except (ValueError, OSError) as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
