"""A saved folder carries its code: it loads and gives the same outputs where hear_hf cannot be imported."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
import transformers
from transformers import AutoFeatureExtractor, AutoModelForAudioClassification

from convert_hear_checkpoint import convert
from golden import SMALL_QUANTIZER, golden_model
from hear_hf import HEARConfig, HEARFeatureExtractor, HEARForAudioClassification, HEARForAudioFrameClassification
from hear_hf.configuration_hear import AUTO_MAP, QUANTIZER_AUTO_MAP
from helpers import SMALL, linear_model, noise, small_model
from original_checkpoints import TINY_CONFIG, whole_classifier
from original_layout import PRETRAINING, TOKENIZER_TRAINING

PREAMBLE = """
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
"""
LOAD = """
loads = [load.split(":") for load in sys.argv[1:]]
for folder, auto_class, output in loads:
    config = transformers.AutoConfig.from_pretrained(folder, trust_remote_code=True)
    extractor = transformers.AutoFeatureExtractor.from_pretrained(folder, trust_remote_code=True)
    auto_class = getattr(transformers, auto_class)
    model = auto_class.from_pretrained(folder, trust_remote_code=True)
    inputs = extractor([clip, clip[:5000]], sampling_rate=16_000, padding=True, return_tensors="pt")
    with torch.no_grad():
        np.save(f"{folder}-{auto_class.__name__}.npy", model(**inputs)[output])
    for loaded in (config, extractor, model):
        assert type(loaded).__module__.startswith("transformers_modules."), type(loaded)
        loaded.save_pretrained(f"again-{folder}-{auto_class.__name__}")
assert "hear_hf" not in sys.modules
"""
FINE_TUNE = """
class Clips(torch.utils.data.Dataset):
    def __len__(self):
        return 8

    def __getitem__(self, i):
        return {"input_values": torch.tensor(clip[: 4000 + 500 * i]), "labels": i % 2}

def collate(items):
    clips = [item["input_values"].numpy() for item in items]
    batch = extractor(clips, sampling_rate=16_000, padding=True, return_tensors="pt")
    return {**batch, "labels": torch.tensor([item["labels"] for item in items])}

extractor = transformers.AutoFeatureExtractor.from_pretrained("saved-classifier", trust_remote_code=True)
model = transformers.AutoModelForAudioClassification.from_pretrained(
    "saved-classifier", trust_remote_code=True, id2label={0: "long", 1: "short"}, label2id={"long": 0, "short": 1},
    ignore_mismatched_sizes=True,
)
arguments = transformers.TrainingArguments(
    "tuned", max_steps=3, per_device_train_batch_size=4, use_cpu=True, report_to="none", remove_unused_columns=False
)
trainer = transformers.Trainer(model, arguments, collate, Clips(), processing_class=extractor)
trainer.train()
trainer.save_model()
classifier = transformers.pipeline("audio-classification", "tuned", trust_remote_code=True)
scores = classifier({"array": clip, "sampling_rate": 16_000})
assert {score["label"] for score in scores} == {"long", "short"}
assert "hear_hf" not in sys.modules
"""
CODE = {
    "acoustic_model_hear.py",
    "base_hear.py",
    "configuration_hear.py",
    "feature_extraction_hear.py",
    "attention_hear.py",
    "frame_head_hear.py",
    "frames_hear.py",
    "graphs_hear.py",
    "masking_hear.py",
    "outputs_hear.py",
    "modeling_hear.py",
    "sentence_transformers_hear.py",
    "spectrogram_hear.py",
    "task_model_hear.py",
    "weight_files_hear.py",
}
# (folder, Auto class, output to compare, the part of the saved model that gives it, tolerance)
LOADS = [
    ("saved-classifier", "AutoModel", "pooler_output", "hear", 5e-5),
    ("saved-classifier", "AutoModelForAudioClassification", "logits", "", 1e-5),
    ("saved-classifier", "AutoModelForPreTraining", "acoustic_hidden_states", "hear", 5e-5),
    ("saved-classifier", "AutoModelForAudioFrameClassification", "frame_mask", "hear", 0),
    ("saved-frames", "AutoModelForAudioFrameClassification", "clip_logits", "", 1e-5),
    ("saved-linear", "AutoModelForAudioClassification", "logits", "", 1e-4),
    ("saved-base", "AutoModel", "last_hidden_state", "", 5e-5),
    ("saved-acoustic", "AutoModelForPreTraining", "logits", "", 1e-5),
    ("saved-acoustic", "AutoModel", "acoustic_hidden_states", "hear", 5e-5),
    ("saved-converted", "AutoModelForAudioClassification", "logits", "", 1e-5),
    ("saved-quantizer", "AutoModel", "logits", "", 1e-5),
    ("saved-quantizer", "AutoModelForAudioTokenization", "codes", "", 0),
    ("saved-training", "AutoModelForPreTraining", "reconstruction", "", 1e-5),
    ("saved-training", "AutoModelForAudioTokenization", "codes", "quantizer", 0),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("models")


@pytest.fixture(scope="module")
def saved(folder):
    """Models by the folders below `folder` that hold them; a hyphen is no part of a module's name."""
    model = small_model()
    training = golden_model(TOKENIZER_TRAINING.main, **SMALL_QUANTIZER)
    models = {
        "saved-classifier": model,
        "saved-frames": HEARForAudioFrameClassification(HEARConfig(**SMALL)).eval(),
        "saved-linear": linear_model(),
        "saved-base": model.hear,
        "saved-acoustic": golden_model(PRETRAINING.main, **SMALL, codebook_size=64),
        "saved-quantizer": training.quantizer,
        "saved-training": training,
    }
    for name, saved_model in models.items():
        saved_model.save_pretrained(folder / name)
        HEARFeatureExtractor().save_pretrained(folder / name)
    torch.save(whole_classifier(TINY_CONFIG), folder / "hear.pth")
    convert(folder / "hear.pth", folder / "saved-converted", window_overlap=3)
    models["saved-converted"] = HEARForAudioClassification.from_pretrained(folder / "saved-converted")
    return models


@pytest.fixture(scope="module")
def elsewhere(saved, folder):
    """`folder` after `LOAD` and `FINE_TUNE` where nothing imports hear_hf or reaches the Hub, from an empty cache."""
    np.save(folder / "clip.npy", noise(20_000).numpy())
    environment = os.environ | {"HF_HOME": str(folder / "home"), "HF_HUB_OFFLINE": "1"}
    environment |= {"HF_MODULES_CACHE": str(folder / "modules"), "PYTHONPATH": ""}
    command = [sys.executable, "-c", PREAMBLE + LOAD + FINE_TUNE, *(":".join(load[:3]) for load in LOADS)]
    result = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return folder


def code_for(name):
    if name in ("saved-quantizer", "saved-training"):
        return CODE - {"modeling_hear.py", "frame_head_hear.py"} | {"modeling_hear_quantizer.py"}
    return CODE


def code_in(folder):
    return {path.name for path in folder.glob("*.py")}


def auto_map_in(folder):
    """The config's entries, beside that of the feature extractor's own file."""
    extractor = json.loads((folder / "preprocessor_config.json").read_text())["auto_map"]
    assert extractor == {"AutoFeatureExtractor": AUTO_MAP["AutoFeatureExtractor"]}
    return json.loads((folder / "config.json").read_text())["auto_map"]


def test_saved_folders_load_without_the_package(saved, elsewhere):
    clip = noise(20_000).numpy()
    inputs = HEARFeatureExtractor()([clip, clip[:5000]], sampling_rate=16_000, padding=True, return_tensors="pt")
    for name, auto_class, output, part, tolerance in LOADS:
        found = np.load(elsewhere / f"{name}-{auto_class}.npy")
        with torch.no_grad():  # as there: what stands at padding differs where gradients are recorded
            expected = saved[name].get_submodule(part)(**inputs)[output].numpy()
        np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance, err_msg=f"{name} {auto_class}")
        again = elsewhere / f"again-{name}-{auto_class}"
        assert code_in(again) == code_for(name) and auto_map_in(again) == auto_map_in(elsewhere / name)


def test_a_model_of_remote_code_is_fine_tuned_and_shared_further(elsewhere):
    assert code_in(elsewhere / "tuned") == CODE and auto_map_in(elsewhere / "tuned") == AUTO_MAP
    tuned = AutoModelForAudioClassification.from_pretrained(elsewhere / "tuned")
    assert type(tuned) is HEARForAudioClassification and tuned.config.label2id == {"long": 0, "short": 1}


def test_every_folder_brings_all_the_code_and_names_every_class(saved, folder):
    for name in saved:
        assert code_in(folder / name) == code_for(name), name
        is_quantizer = "modeling_hear_quantizer.py" in code_for(name)
        assert auto_map_in(folder / name) == (QUANTIZER_AUTO_MAP if is_quantizer else AUTO_MAP), name


def test_with_the_package_the_same_folders_load_without_trusting_anything(saved, folder):
    for name, auto_class, *_ in LOADS:
        loaded = getattr(transformers, auto_class).from_pretrained(folder / name)
        extractor = AutoFeatureExtractor.from_pretrained(folder / name)
        assert type(loaded).__module__.startswith("hear_hf.") and type(extractor) is HEARFeatureExtractor
