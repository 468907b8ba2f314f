"""Loads models by Auto classes with the code that they carry, and saves their outputs on a fixed clip.

`run_child` runs this file in a process of its own, in which `hear_hf` cannot be imported: a model must do without it,
as on the machine of anybody who lacks it. Hence this file imports nothing of the package.
"""

import importlib.abc
import importlib.util
import io
import os
import signal
import sys
import threading
from pathlib import Path

import numpy as np
import soundfile
import torch
import transformers
from huggingface_hub import snapshot_download

HANDLER = "EndpointHandler"  # in the place of an Auto class: the class in handler.py that Inference Endpoints call


class Absence(importlib.abc.MetaPathFinder):
    """Makes the import of a package fail as if it were not installed."""

    def __init__(self, package: str):
        self.package = package

    def find_spec(self, fullname, path=None, target=None):
        if fullname.partition(".")[0] == self.package:
            raise ModuleNotFoundError(f"No module named {fullname!r}", name=fullname)
        return None


def noise(num_samples: int) -> np.ndarray:
    """A fixed clip, float32 of shape (num_samples,)."""
    return np.random.default_rng(0).normal(scale=0.1, size=num_samples).astype(np.float32)


@torch.no_grad()
def outputs_on_noise(model, feature_extractor) -> np.ndarray:
    """The logits of one second of noise, or the hidden states of a model without a head, (1, ...)."""
    rate = feature_extractor.sampling_rate
    inputs = feature_extractor(noise(rate), sampling_rate=rate, return_tensors="pt")
    outputs = model.eval()(**inputs.to(model.dtype))
    return (outputs["logits"] if "logits" in outputs else outputs["last_hidden_state"]).float().numpy()


def load(auto_class, source: str, place: dict, base: str):
    """A model, or of an adapter the base model in the folder `base` and the adapter on it."""
    if not base:
        return auto_class.from_pretrained(source, **place)
    from peft import PeftModel

    config = transformers.AutoConfig.from_pretrained(source, **place)
    model = auto_class.from_pretrained(base, config=config, ignore_mismatched_sizes=True, trust_remote_code=True)
    return PeftModel.from_pretrained(model, source, revision=place["revision"]).get_base_model()


def served_scores(folder: Path) -> np.ndarray:
    """The scores of all labels, (num_labels,), that a folder's handler gives the file of one second of noise."""
    module("audio", folder / "audio" / "__init__.py")
    handler = getattr(module(f"handler.{HANDLER}", folder / "handler.py"), HANDLER)(str(folder))
    rate, index_of = handler.feature_extractor.sampling_rate, handler.model.config.label2id
    file = io.BytesIO()
    soundfile.write(file, noise(rate), rate, format="WAV", subtype="FLOAT")
    scores = np.zeros(len(index_of), np.float32)
    for one in handler({"inputs": file.getvalue(), "parameters": {"top_k": len(index_of)}}):
        scores[index_of[one["label"]]] = one["score"]
    return scores


def module(name: str, file: Path):
    """Imports a file as the module `name`."""
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None and spec.loader is not None
    loaded = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


def die_with_parent() -> None:
    """Ends this process and its children when its standard input closes: with its parent, however that ends."""

    def watch() -> None:
        while os.read(0, 1):
            pass
        os.killpg(0, signal.SIGKILL) if hasattr(os, "killpg") else os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def main(folder: str, source: str, revision: str, base: str, *models: str) -> None:
    die_with_parent()
    sys.meta_path.insert(0, Absence("hear_hf"))
    for i, model in enumerate(models):
        auto_class, _, subfolder = model.partition(":")
        place = {"revision": revision, "subfolder": subfolder, "trust_remote_code": True}
        if auto_class == HANDLER:
            local = source if os.path.isdir(source) else snapshot_download(source, revision=revision)
            outputs = served_scores(Path(local))
        else:
            feature_extractor = transformers.AutoFeatureExtractor.from_pretrained(source, **place)
            outputs = outputs_on_noise(load(getattr(transformers, auto_class), source, place, base), feature_extractor)
        np.save(Path(folder) / f"{i}.npy", outputs)


if __name__ == "__main__":
    main(*sys.argv[1:])
