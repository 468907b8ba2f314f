"""A small classifier and its export in all types, made once for all tests of deployment."""

import pytest
import soundfile
import torch

from hear_hf import HEARFeatureExtractor
from helpers import noise, small_model

LABELS = ["bee", "cat", "dog", "eel", "fox", "gnu", "hen"]


@pytest.fixture(scope="session")
def waveforms():
    """Eight clips of noise, of 0.25 to 1.6 s."""
    return [noise(4000 + 3000 * i, i).clamp(-1, 1) for i in range(8)]


@pytest.fixture(scope="session")
@torch.no_grad()
def model(waveforms):
    """Gives the clips several labels. It has windows of 30 frames, segments of 150, and one layer: half the time."""
    model = small_model(
        num_hidden_layers=1, id2label=dict(enumerate(LABELS)), problem_type="multi_label_classification"
    )
    logits = torch.cat([model(waveform[None]).logits for waveform in waveforms])
    model.classifier.out_proj.bias -= logits.median(dim=0).values
    return model


@pytest.fixture(scope="session")
def folder(model, waveforms, tmp_path_factory):
    """The saved `model` with its exported files, and the clips, `0.wav` and so on."""
    from export_onnx import main  # needs an extra

    folder = tmp_path_factory.mktemp("exported")
    for i, waveform in enumerate(waveforms):
        soundfile.write(folder / f"{i}.wav", waveform.numpy(), 16_000, subtype="FLOAT")
    model.save_pretrained(folder / "model")
    HEARFeatureExtractor().save_pretrained(folder / "model")
    main([str(folder / "model"), str(folder / "model"), "--dtype", "float32", "float16", "int8"])
    return folder
