"""Checkpoints made to harm: nothing in them is executed, and what does not fit is refused with the key named."""

import json
import os

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForAudioClassification, modeling_utils

from hear_hf import HEARForAudioClassification
from helpers import small_model


@pytest.fixture
def folder(model, tmp_path):
    model.save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def change_weights(folder, change):
    state_dict = load_file(folder / "model.safetensors")
    change(state_dict)
    save_file(state_dict, folder / "model.safetensors", metadata={"format": "pt"})


def change_config(folder, **fields):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | fields))


class Payload:
    """Makes a folder when it is unpickled."""

    def __init__(self, place):
        self.place = str(place)

    def __reduce__(self):
        return os.mkdir, (self.place,)


def test_a_pickle_is_not_executed(folder, tmp_path):
    (folder / "model.safetensors").unlink()
    torch.save({"classifier.dense.weight": Payload(tmp_path / "executed")}, folder / "pytorch_model.bin")
    with pytest.raises(Exception, match="Weights only load failed"):
        HEARForAudioClassification.from_pretrained(folder)
    assert not (tmp_path / "executed").exists()


def test_code_beside_the_weights_is_not_executed_unless_trusted(folder, tmp_path):
    config_code = folder / "configuration_hear.py"
    config_code.write_text(f"import os\nos.mkdir({str(tmp_path / 'executed')!r})\n{config_code.read_text()}")
    AutoModelForAudioClassification.from_pretrained(folder)
    assert not (tmp_path / "executed").exists()


def test_a_tensor_of_another_shape_is_refused_by_name(folder, monkeypatch):
    reports = []
    monkeypatch.setattr(modeling_utils.logger, "warning", reports.append)  # Transformers' logger does not propagate
    change_weights(folder, lambda weights: weights.update({"classifier.out_proj.bias": torch.zeros(8)}))
    with pytest.raises(RuntimeError):
        HEARForAudioClassification.from_pretrained(folder)
    assert "classifier.out_proj.bias" in reports[0] and "ckpt: torch.Size([8])" in reports[0]


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        (lambda weights: weights.pop("classifier.out_proj.bias"), "missing_keys"),
        (lambda weights: weights.update({"classifier.extra": torch.ones(1)}), "unexpected_keys"),
    ],
)
def test_missing_and_extra_tensors_are_reported_by_name(folder, change, kind):
    change_weights(folder, change)
    _, report = HEARForAudioClassification.from_pretrained(folder, output_loading_info=True)
    assert len(report[kind]) == 1 and next(iter(report[kind])).startswith("classifier.")


@pytest.mark.parametrize("field", ["hidden_size", "num_hidden_layers", "num_mel_bins", "n_fft", "window_length"])
def test_absurd_sizes_are_refused_before_anything_is_built(folder, field):
    change_config(folder, **{field: 10**12})
    with pytest.raises(Exception, match=f"(?s){field}.*1000000000000"):
        HEARForAudioClassification.from_pretrained(folder)


@pytest.mark.parametrize(
    ("fields", "found"),
    [
        ({"event_median_frames": 10**6 + 1}, "event_median_frames.*1000001"),
        ({"event_median_frames": -1}, "event_median_frames.*-1"),
        ({"n_fft": 2**16}, "n_fft=65536"),
        ({"codebook_size": 2**17}, "codebook_size=131072"),
        ({"classifier_proj_size": 2**20}, "classifier_proj_size=1048576"),
        ({"num_labels": 3.0, "id2label": None, "label2id": None}, "num_labels.*3.0"),
        ({"num_labels": "3", "id2label": None, "label2id": None}, "num_labels.*'3'"),
        ({"id2label": {"0": "a", "2": "b"}}, "id2label.*2: 'b'"),
        ({"id2label": {"0": "a", "1": ["b"]}}, "id2label"),
        ({"id2label": {"0": None}}, "id2label"),
        ({"id2label": {"0": "\ud800"}}, "id2label"),
    ],
)
def test_what_a_small_model_cannot_bear_is_refused_before_anything_is_built(folder, fields, found):
    change_config(folder, **fields)
    with pytest.raises(Exception, match=f"(?s){found}"):
        HEARForAudioClassification.from_pretrained(folder)


@pytest.mark.parametrize("place", ["../{}", "{folder}/{}", "..\\{}"])
@pytest.mark.parametrize("auto", [True, False])
def test_no_weights_outside_the_folder_are_read_whatever_an_index_of_shards_names(tmp_path, place, auto):
    folder = tmp_path / "model"
    small_model().save_pretrained(folder, max_shard_size="200KB")
    path = folder / "model.safetensors.index.json"
    index = json.loads(path.read_text())
    first = sorted(set(index["weight_map"].values()))[0]
    (folder / first).rename(tmp_path / first)
    other = place.format(first, folder=tmp_path)
    index["weight_map"] = {key: other if name == first else name for key, name in index["weight_map"].items()}
    path.write_text(json.dumps(index))
    loader = AutoModelForAudioClassification if auto else HEARForAudioClassification
    with pytest.raises(ValueError, match="model.safetensors.index.json must name weights beside it"):
        loader.from_pretrained(folder)


def test_no_weights_outside_the_folder_are_read_whatever_the_configuration_names(tmp_path):
    small_model().save_pretrained(tmp_path / "model")
    path = tmp_path / "model" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"transformers_weights": "../model.safetensors"}))
    with pytest.raises(ValueError, match="config.json must name weights beside it"):
        HEARForAudioClassification.from_pretrained(tmp_path / "model")
