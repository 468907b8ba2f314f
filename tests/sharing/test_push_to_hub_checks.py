"""What `examples/push_to_hub.py` refuses to publish: folders that do not load, or give other outputs elsewhere."""

import json
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import push_to_hub
from hear_hf import HEARFeatureExtractor
from hear_hf.sharing import checks as hub_checks
from helpers import small_model
from pushing import LABELS, card_of, edit, push, refused


def test_a_folder_without_a_model_is_refused(tmp_path):
    assert "found no config.json" in refused(tmp_path)


@pytest.mark.parametrize("text", ["{", "[]", "[" * 100_000])
def test_a_damaged_configuration_is_refused(folder, text):
    (folder / "config.json").write_text(text)
    assert "config.json must" in refused(folder)


@pytest.mark.parametrize("kind", ["missing", "unexpected", "mismatched", "NaN"])
def test_weights_that_do_not_fit_are_refused(tmp_path, kind, hub):
    small_model().save_pretrained(tmp_path)
    HEARFeatureExtractor().save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    first = next(name for name in weights if name.endswith("weight"))
    changed = {"unexpected": {"stranger": torch.ones(3)}, "mismatched": {first: torch.ones(3)}}
    weights |= changed.get(kind, {first: weights[first] * torch.nan})
    if kind == "missing":
        del weights[first]
    save_file(weights, tmp_path / "model.safetensors", {"format": "pt"})
    assert f"found {kind}" in refused(tmp_path)
    assert not hub.requests


def test_pickled_weights_are_refused(folder):
    for path in folder.glob("model*.safetensors*"):
        path.unlink()
    torch.save({}, folder / "pytorch_model.bin")
    assert "The weights must be in model.safetensors" in refused(folder)


def test_damaged_weights_are_refused(folder):
    next(folder.glob("model-00001*")).write_bytes(b"no weights")
    assert "must load and run" in refused(folder)


def test_code_that_the_configuration_names_must_be_there(folder):
    (folder / "masking_hear.py").unlink()
    assert "found no masking_hear.py" in refused(folder)


def test_code_that_does_not_run_elsewhere_is_refused(folder, real_loads, hub):
    with (folder / "masking_hear.py").open("a") as file:
        file.write("\nimport hear_hf\n")
    assert "must load where hear_hf is absent" in refused(folder, "--trust_remote_code").splitlines()[-1]
    assert not hub.requests


def test_code_that_gives_other_outputs_elsewhere_is_refused(folder, real_loads, monkeypatch):
    monkeypatch.setattr(hub_checks, "outputs_elsewhere", lambda *place: [np.zeros((1, len(LABELS)))])
    assert "must give the same outputs where hear_hf is absent" in refused(folder)


def test_labels_that_disagree_with_the_head_or_each_other_are_refused(folder):
    edit(folder, label2id={name: 0 for name in LABELS})
    assert "must be the inverse" in refused(folder)
    edit(folder, id2label={"0": "dog", "2": "cat"})
    assert "`id2label` must name the" in refused(folder) or "mismatched" in refused(folder)


def test_a_feature_extractor_of_another_rate_is_refused(folder):
    edit(folder, "preprocessor_config.json", sampling_rate=32_000)
    assert "preprocessor_config.json, found: 16000 and 32000 Hz" in refused(folder)


@pytest.mark.parametrize("file", ["config.json", "preprocessor_config.json"])
@pytest.mark.parametrize("auto_map", [["a.B"], "a.B", 3, {"AutoModel": 3}, {"AutoModel": [["a.B"]]}])
def test_an_auto_map_of_another_type_is_refused_without_a_traceback(folder, file, auto_map):
    edit(folder, file, auto_map=auto_map)
    assert f"`auto_map` of {file} must name a class" in refused(folder)


@pytest.mark.parametrize("up", ["../", "absolute", "sub/", "..\\"])
def test_an_index_of_shards_names_no_file_outside_its_folder(folder, tmp_path, up, hub):
    shard = next(folder.glob("model-00001*"))
    shutil.copy(shard, tmp_path / shard.name)
    other = str(tmp_path / shard.name) if up == "absolute" else f"{up}{shard.name}"
    index = json.loads((folder / "model.safetensors.index.json").read_text())
    weight_map = {key: other if name == shard.name else name for key, name in index["weight_map"].items()}
    edit(folder, "model.safetensors.index.json", weight_map=weight_map)
    assert "must name files beside it" in refused(folder)
    assert not hub.requests


@pytest.mark.parametrize("weight_map", [None, [], "model.safetensors", {"a": 3}])
def test_an_index_of_shards_of_another_type_is_refused_without_a_traceback(folder, weight_map):
    edit(folder, "model.safetensors.index.json", weight_map=weight_map)
    assert "must name files beside it" in refused(folder)


def test_labels_that_are_no_text_are_refused_without_a_traceback(folder):
    edit(folder, id2label={str(i): ["dog"] for i in range(7)})
    assert "id2label" in refused(folder)


def test_scores_that_are_no_numbers_do_not_end_a_push_in_a_traceback(folder, hub):
    edit(folder, "test_results.json", test_accuracy="0.9", test_macro_f1=0.5, test_loss=[1])
    edit(folder, "test_results.json", test_top_k=10**400, test_perplexity=float("inf"))
    push(folder)
    assert [(result.metric_type, result.metric_value) for result in card_of(hub).data.eval_results] == [
        ("macro_f1", 0.5)
    ]


@pytest.mark.parametrize("letters", [300, 5_000])
def test_a_path_too_long_for_the_system_is_refused_without_a_traceback(tmp_path, letters, capsys):
    for argv in (["m" * letters, "a/b"], ["--examples", "m" * letters, str(tmp_path), "a/b"]):
        with pytest.raises(SystemExit) as stop:
            push_to_hub.main(argv)
        assert len(f"{stop.value.code}{capsys.readouterr().err}") < 300
