"""Reads checkpoints of the original and converted folders; refuses what is broken, missing, unknown or not finite."""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file

from hear_hf import HEARConfig, HEARQuantizerConfig

NESTING = ("state_dict", "model_state_dict", "model")
MAX_DEPTH = 8  # a pickle may nest a dict in itself
MAX_LISTED, MAX_LETTERS = 20, 100  # names in a message, and letters of each
WRAPPERS = ("module", "_orig_mod")  # of DataParallel and of torch.compile
CONFIG_CLASSES = {config_class.model_type: config_class for config_class in (HEARConfig, HEARQuantizerConfig)}
COUNTERS = ("num_batches_tracked", "num_updates")

StateDict = dict[str, torch.Tensor]


def read_checkpoint(path: Path) -> StateDict:
    """Reads the state dict in a file, without its nesting and the prefixes of wrappers, and runs no code of the file.

    Raises:
        `ValueError`: The file cannot be read, or holds anything but tensors by name.
    """
    if not path.is_file():
        raise ValueError(f"`{path}` must be a file, found: {'a folder' if path.is_dir() else 'nothing'}.")
    try:
        found = torch.load(path, weights_only=True, map_location="cpu")
    except Exception as error:  # torch raises many kinds, and advises to switch its protection off
        code = re.search(r"GLOBAL ([\w.]+)", str(error))
        reason = f"Python objects (`{code.group(1)}`), which were not run" if code else "another or a broken file"
        raise ValueError(
            f"`{path}` must be a PyTorch checkpoint that holds tensors alone, found: {reason}. "
            "Save the model's `state_dict()` with `torch.save`."
        ) from error
    state_dict = unwrap(found)
    if not isinstance(state_dict, dict) or not state_dict or not all(isinstance(key, str) for key in state_dict):
        kind = "dict that is empty or has no names" if isinstance(state_dict, dict) else type(state_dict).__name__
        raise ValueError(
            f"`{path}` must hold a state dict, tensors by name, found: a {kind}. "
            "Save the model's `state_dict()` with `torch.save`."
        )
    return strip_wrappers(state_dict)


def unwrap(found):
    """Finds the state dict that training scripts nest under `state_dict` and the like."""
    for _ in range(MAX_DEPTH):
        if not isinstance(found, dict):
            break
        found = next((found[name] for name in NESTING if isinstance(found.get(name), dict)), found)
    return found


def strip_wrappers(state_dict: StateDict) -> StateDict:
    stripped = {}
    for key, tensor in state_dict.items():
        name = ".".join(part for part in key.split(".") if part not in WRAPPERS)
        if name in stripped:
            raise ValueError(f"The checkpoint must hold each tensor once, found `{name}` with and without a prefix.")
        stripped[name] = tensor
    return stripped


def read_config(folder: Path) -> HEARConfig | HEARQuantizerConfig:
    """Reads the configuration of a folder that `save_pretrained` wrote.

    Raises:
        `ValueError`: The folder holds no intact HEAR model, or one that the original cannot express.
    """
    if not (folder / "model.safetensors").is_file() or not (folder / "config.json").is_file():
        raise ValueError(f"`{folder}` must be a folder that holds config.json and model.safetensors.")
    try:
        config_dict, _ = HEARConfig.get_config_dict(folder, local_files_only=True)
        config_class = CONFIG_CLASSES.get(str(config_dict.get("model_type")))
        config = config_class and config_class.from_dict(config_dict)
    except Exception as error:  # two libraries, each with errors of its own
        raise ValueError(f"`{folder}` must hold an intact model, found: {one_line(error)}") from error
    if config is None:
        raise ValueError(f"`{folder}` must hold a HEAR model, found: {config_dict.get('model_type')}.")
    for name in ("hidden_act", "layer_norm_eps"):
        if getattr(config, name) != getattr(HEARConfig, name):
            raise ValueError(
                f"`{name}` must be {getattr(HEARConfig, name)}, the only one that the original knows, found: "
                f"{getattr(config, name)}."
            )
    return config


def read_folder(folder: Path) -> tuple[HEARConfig | HEARQuantizerConfig, StateDict]:
    """Reads the configuration and the tensors of a folder that `save_pretrained` wrote.

    Raises:
        `ValueError`: The folder holds no intact HEAR model, or one that the original cannot express.
    """
    config = read_config(folder)
    try:
        return config, load_file(folder / "model.safetensors")
    except Exception as error:  # safetensors raises one of its own, the file system others
        raise ValueError(f"`{folder}` must hold an intact model, found: {one_line(error)}") from error


def check_names(what: str, found: Iterable[str], expected: list[str]) -> None:
    """Refuses missing and unexpected names, and lists them."""
    missing = sorted(set(expected) - set(found))
    unexpected = sorted(set(found) - set(expected))
    if missing or unexpected:
        raise ValueError(
            f"{what} must hold exactly the tensors of its model, found: {len(missing)} missing ({listed(missing)}) "
            f"and {len(unexpected)} unexpected ({listed(unexpected)})."
        )


def check_tensor(key: str, tensor: torch.Tensor) -> None:
    """Refuses a tensor that is not dense, not of the original's dtype, or not finite."""
    if not isinstance(tensor, torch.Tensor) or tensor.layout != torch.strided or tensor.device.type != "cpu":
        raise ValueError(f"`{key}` must be a dense tensor, found: {getattr(tensor, 'layout', type(tensor).__name__)}.")
    if tensor.nbytes > tensor.untyped_storage().nbytes():
        raise ValueError(f"`{key}` must hold each of its {tensor.numel()} values, found: an expanded view of fewer.")
    dtype = torch.int64 if key.endswith(COUNTERS) else torch.float32
    if tensor.dtype != dtype:
        raise ValueError(f"`{key}` must be {dtype}, found: {tensor.dtype}. Convert it, and save the checkpoint again.")
    num_bad = int((~tensor.isfinite()).sum())
    if num_bad:
        raise ValueError(f"`{key}` must be finite, found: {num_bad} NaN or infinite of {tensor.numel()} values.")


def check_shapes(found: StateDict, expected: Mapping[str, tuple[int, ...] | None], why: str) -> None:
    """Refuses tensors of another shape, and lists all of them."""
    wrong = [
        f"`{key}` must have shape {shape}, found: {tuple(found[key].shape)}"
        for key, shape in expected.items()
        if tuple(found[key].shape) != shape
    ]
    if wrong:
        raise ValueError(f"{'; '.join(wrong)}. {why}")


def listed(keys: Iterable[str]) -> str:
    """The first of the names, each cut short: a checkpoint of others may hold any number of any length."""
    names = [f"`{key}`" if len(key) <= MAX_LETTERS else f"`{key[:MAX_LETTERS]}...`" for key in keys]
    return ", ".join(names[:MAX_LISTED] + ["..."] * (len(names) > MAX_LISTED)) or "none"


def one_line(error: Exception) -> str:
    return " ".join(str(error).split())
