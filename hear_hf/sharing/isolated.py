"""Loads models by Auto classes with the code that they carry, and saves their outputs on a fixed clip.

    python -P hear_hf/sharing/isolated.py OUTPUT_FOLDER SOURCE REVISION AUTO_CLASS[:SUBFOLDER] ...

`hear_hf` cannot be imported here, so a model must do without it, as on the machine of anybody who lacks it. Hence this
file imports nothing of the package.
"""

import importlib.abc
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
import transformers

CACHES = ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_XET_CACHE", "HF_MODULES_CACHE", "TRANSFORMERS_CACHE")


class Absence(importlib.abc.MetaPathFinder):
    """Makes the import of a package fail as if it were not installed."""

    def __init__(self, package: str):
        self.package = package

    def find_spec(self, fullname, path=None, target=None):
        if fullname.partition(".")[0] == self.package:
            raise ModuleNotFoundError(f"No module named {fullname!r}", name=fullname)
        return None


@torch.no_grad()
def outputs_on_noise(model, feature_extractor) -> np.ndarray:
    """The logits of one second of noise, or the hidden states of a model without a head, (1, ...)."""
    rate = feature_extractor.sampling_rate
    clip = np.random.default_rng(0).normal(scale=0.1, size=rate).astype(np.float32)
    inputs = feature_extractor(clip, sampling_rate=rate, return_tensors="pt")
    outputs = model.eval()(**inputs.to(model.dtype))
    return (outputs["logits"] if "logits" in outputs else outputs["last_hidden_state"]).float().numpy()


def outputs_elsewhere(
    source: str, models: list[tuple[str, str]], revision: str = "main", token: str | None = None
) -> list[np.ndarray]:
    """
    Computes `outputs_on_noise` as another machine would: without `hear_hf` and with empty caches.

    Args:
        source (`str`): A folder, which is read offline, or a repository of the Hub.
        models (`list[tuple[str, str]]`): The Auto class and the sub-folder of each, for example `("AutoModel", "")`.
        revision (`str`, *optional*, defaults to `"main"`): Branch, tag or commit.
        token (`str`, *optional*): A token that may read it.

    Raises:
        `RuntimeError`: A model did not load; the message is the last line of the error.
    """
    with tempfile.TemporaryDirectory() as temporary:
        environment = {name: value for name, value in os.environ.items() if name not in CACHES}
        environment |= {"HF_HOME": temporary, "HF_HUB_OFFLINE": str(int(Path(source).is_dir()))}
        if token is not None:
            environment["HF_TOKEN"] = token
        command = [sys.executable, "-P", __file__, temporary, source, revision, *map(":".join, models)]
        result = subprocess.run(command, env=environment, capture_output=True, text=True, errors="replace")
        if result.returncode != 0:
            raise RuntimeError((result.stderr.strip().splitlines() or ["the process ended without a message"])[-1])
        return [np.load(Path(temporary) / f"{i}.npy") for i in range(len(models))]


def main(folder: str, source: str, revision: str, *models: str) -> None:
    sys.meta_path.insert(0, Absence("hear_hf"))
    for i, model in enumerate(models):
        auto_class, _, subfolder = model.partition(":")
        place = {"revision": revision, "subfolder": subfolder, "trust_remote_code": True}
        feature_extractor = transformers.AutoFeatureExtractor.from_pretrained(source, **place)
        loaded = getattr(transformers, auto_class).from_pretrained(source, **place)
        np.save(Path(folder) / f"{i}.npy", outputs_on_noise(loaded, feature_extractor))


if __name__ == "__main__":
    main(*sys.argv[1:])
