"""Loads models by Auto classes with the code that they carry, and saves their outputs on a fixed clip.

`run_child` runs this file in a process of its own, in which `hear_hf` cannot be imported: a model must do without it,
as on the machine of anybody who lacks it. Hence this file imports nothing of the package.
"""

import importlib.abc
import json
import os
import signal
import sys
import threading
from pathlib import Path

import numpy as np
import torch
import transformers
from transformers.utils import find_adapter_config_file


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


def load(auto_class, source: str, place: dict):
    """A model, or the base model that an adapter names and the adapter on it."""
    file = find_adapter_config_file(source, revision=place["revision"])
    if file is None:
        return auto_class.from_pretrained(source, **place)
    from peft import PeftModel

    adapter = json.loads(Path(file).read_text(encoding="utf-8"))
    config = transformers.AutoConfig.from_pretrained(source, **place)
    base = auto_class.from_pretrained(
        adapter["base_model_name_or_path"],
        revision=adapter.get("revision") or "main",
        config=config,
        ignore_mismatched_sizes=True,
        trust_remote_code=True,
    )
    return PeftModel.from_pretrained(base, source, revision=place["revision"]).get_base_model()


def die_with_parent() -> None:
    """Ends this process and its children when its standard input closes: with its parent, however that ends."""

    def watch() -> None:
        while os.read(0, 1):
            pass
        os.killpg(0, signal.SIGKILL) if hasattr(os, "killpg") else os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def main(folder: str, source: str, revision: str, *models: str) -> None:
    die_with_parent()
    sys.meta_path.insert(0, Absence("hear_hf"))
    for i, model in enumerate(models):
        auto_class, _, subfolder = model.partition(":")
        place = {"revision": revision, "subfolder": subfolder, "trust_remote_code": True}
        feature_extractor = transformers.AutoFeatureExtractor.from_pretrained(source, **place)
        loaded = load(getattr(transformers, auto_class), source, place)
        np.save(Path(folder) / f"{i}.npy", outputs_on_noise(loaded, feature_extractor))


if __name__ == "__main__":
    main(*sys.argv[1:])
