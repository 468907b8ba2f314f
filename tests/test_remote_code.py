"""A saved folder carries its code: it loads and gives the same logits where hear_hf cannot be imported."""

import os
import subprocess
import sys

import numpy as np
import pytest

from hear_hf import HEARFeatureExtractor
from helpers import noise

SCRIPT = """
import sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "hear_hf":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Blocker())

import numpy as np
import torch
from transformers import AutoConfig, AutoFeatureExtractor, AutoModel, AutoModelForAudioClassification

folder, clip = sys.argv[1], np.load("clip.npy")
config = AutoConfig.from_pretrained(folder, trust_remote_code=True)
extractor = AutoFeatureExtractor.from_pretrained(folder, trust_remote_code=True)
base = AutoModel.from_pretrained(folder, trust_remote_code=True)
model = AutoModelForAudioClassification.from_pretrained(folder, trust_remote_code=True)
inputs = extractor([clip, clip[:5000]], sampling_rate=16_000, padding=True, return_tensors="pt")
with torch.no_grad():
    np.save("pooled.npy", base(**inputs).pooler_output)
    np.save("logits.npy", model(**inputs).logits)
model.save_pretrained("again")
extractor.save_pretrained("again")
AutoModelForAudioClassification.from_pretrained("again", trust_remote_code=True)
for loaded in (config, extractor, base, model):
    assert type(loaded).__module__.startswith("transformers_modules."), type(loaded)
assert "hear_hf" not in sys.modules
"""


@pytest.fixture
def folder(model, tmp_path):
    folder = tmp_path / "saved-model"  # a hyphen is no part of a module's name
    model.save_pretrained(folder)
    HEARFeatureExtractor().save_pretrained(folder)
    return folder


def test_a_saved_folder_loads_without_the_package(model, folder, tmp_path):
    clip = noise(20_000).numpy()
    np.save(tmp_path / "clip.npy", clip)
    environment = os.environ | {"HF_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "1"}
    environment |= {"HF_MODULES_CACHE": str(tmp_path / "modules"), "PYTHONPATH": ""}
    command = [sys.executable, "-c", SCRIPT, str(folder)]
    result = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    inputs = HEARFeatureExtractor()([clip, clip[:5000]], sampling_rate=16_000, padding=True, return_tensors="pt")
    expected = model(**inputs).logits.detach().numpy()
    np.testing.assert_allclose(np.load(tmp_path / "logits.npy"), expected, rtol=0, atol=1e-5)
    expected = model.hear(**inputs).pooler_output.detach().numpy()
    np.testing.assert_allclose(np.load(tmp_path / "pooled.npy"), expected, rtol=0, atol=5e-5)


def test_no_file_of_the_package_is_left_out(folder):
    saved = {path.name for path in folder.glob("*.py")}
    assert saved == {
        "acoustic_model_hear.py",
        "configuration_hear.py",
        "feature_extraction_hear.py",
        "masking_hear.py",
        "modeling_hear.py",
        "spectrogram_hear.py",
    }
