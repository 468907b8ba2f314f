"""A saved folder carries its code: it loads and gives the same outputs where hear_hf cannot be imported."""

import os
import subprocess
import sys

import numpy as np
import pytest

from golden import SMALL_QUANTIZER, golden_model
from hear_hf import HEARFeatureExtractor
from helpers import SMALL, noise
from original_layout import PRETRAINING, TOKENIZER_TRAINING

SCRIPT = """
import sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "hear_hf":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Blocker())

import numpy as np
import torch
import transformers

clip = np.load("clip.npy")
loads = [load.split(":") for load in sys.argv[1:]]
for folder, auto_class, output in loads:
    config = transformers.AutoConfig.from_pretrained(folder, trust_remote_code=True)
    extractor = transformers.AutoFeatureExtractor.from_pretrained(folder, trust_remote_code=True)
    auto_class = getattr(transformers, auto_class)
    model = auto_class.from_pretrained(folder, trust_remote_code=True)
    inputs = extractor([clip, clip[:5000]], sampling_rate=16_000, padding=True, return_tensors="pt")
    with torch.no_grad():
        np.save(f"{folder}-{auto_class.__name__}.npy", model(**inputs)[output])
    model.save_pretrained("again")
    extractor.save_pretrained("again")
    auto_class.from_pretrained("again", trust_remote_code=True)
    for loaded in (config, extractor, model):
        assert type(loaded).__module__.startswith("transformers_modules."), type(loaded)
assert "hear_hf" not in sys.modules
"""
CODE = {
    "acoustic_model_hear.py",
    "configuration_hear.py",
    "feature_extraction_hear.py",
    "masking_hear.py",
    "modeling_hear.py",
    "spectrogram_hear.py",
    "task_model_hear.py",
}
# (folder, Auto class, output to compare, the part of the saved model that gives it, tolerance)
LOADS = [
    ("saved-classifier", "AutoModel", "pooler_output", "hear", 5e-5),
    ("saved-classifier", "AutoModelForAudioClassification", "logits", "", 1e-5),
    ("saved-acoustic", "AutoModelForPreTraining", "logits", "", 1e-5),
    ("saved-acoustic", "AutoModel", "acoustic_hidden_states", "hear", 5e-5),
    ("saved-quantizer", "AutoModel", "logits", "", 1e-5),
    ("saved-quantizer", "AutoModelForAudioTokenization", "codes", "", 0),
    ("saved-training", "AutoModelForPreTraining", "reconstruction", "", 1e-5),
    ("saved-training", "AutoModelForAudioTokenization", "codes", "quantizer", 0),
]


@pytest.fixture
def saved(model, tmp_path):
    """Models by the folders that hold them; a hyphen is no part of a module's name."""
    training = golden_model(TOKENIZER_TRAINING.main, **SMALL_QUANTIZER)
    models = {
        "saved-classifier": model,
        "saved-acoustic": golden_model(PRETRAINING.main, **SMALL, codebook_size=64),
        "saved-quantizer": training.quantizer,
        "saved-training": training,
    }
    for folder, saved_model in models.items():
        saved_model.save_pretrained(tmp_path / folder)
        HEARFeatureExtractor().save_pretrained(tmp_path / folder)
    return models


def test_saved_folders_load_without_the_package(saved, tmp_path):
    clip = noise(20_000).numpy()
    np.save(tmp_path / "clip.npy", clip)
    environment = os.environ | {"HF_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "1"}
    environment |= {"HF_MODULES_CACHE": str(tmp_path / "modules"), "PYTHONPATH": ""}
    command = [sys.executable, "-c", SCRIPT, *(":".join(load[:3]) for load in LOADS)]
    result = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    inputs = HEARFeatureExtractor()([clip, clip[:5000]], sampling_rate=16_000, padding=True, return_tensors="pt")
    for folder, auto_class, output, part, tolerance in LOADS:
        expected = saved[folder].get_submodule(part)(**inputs)[output].detach().numpy()
        found = np.load(tmp_path / f"{folder}-{auto_class}.npy")
        np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance, err_msg=f"{folder} {auto_class}")


def test_no_file_of_the_package_is_left_out(saved, tmp_path):
    for folder in saved:
        quantizer = {"modeling_hear_quantizer.py"} if folder in ("saved-quantizer", "saved-training") else set()
        assert {path.name for path in (tmp_path / folder).glob("*.py")} == CODE | quantizer
