"""Models in repositories of a Hub on the loopback interface: loaded by name where `hear_hf` is absent, and pushed by
the training scripts."""

import json
import os
import shlex
import subprocess
import sys

import numpy as np
import pytest
import torch
from huggingface_hub import HfApi
from transformers import AutoModelForAudioClassification

import finetune
import push_to_hub
import train_quantizer
from hear_hf import HEARFeatureExtractor, HEARForAudioClassification
from hear_hf.data.labelled import DataArguments
from hear_hf.data.sources import hub_datasets
from hear_hf.sharing.models import TRAINER_DRAFT
from helpers import noise, small_model, write_tone
from local_hub import connect

LOAD = """
import json
import sys

sys.modules["hear_hf"] = None  # its import fails, as if it were not installed

import numpy as np
from transformers import AutoConfig, pipeline


def scores(name, **options):
    classifier = pipeline("audio-classification", model=name, trust_remote_code=True, **options)
    clip = {"array": np.load("clip.npy"), "sampling_rate": 16_000}
    return {entry["label"]: entry["score"] for entry in classifier(clip, top_k=7)}


def error(**options):
    try:
        AutoConfig.from_pretrained("alice/hidden", trust_remote_code=True, **options)
    except OSError as error:
        return str(error)


found = {
    "main": scores("alice/hear"),
    "v1": scores("alice/hear", revision="v1"),
    "without a token": error(token=False),
    "with another's token": error(token="hf_bob"),
    "hidden": scores("alice/hidden", token="hf_alice"),
    "package": sys.modules["hear_hf"] is not None,
}
json.dump(found, open("found.json", "w"))
"""
QUANTIZER = (
    "hidden_size=16,intermediate_size=24,num_hidden_layers=1,num_attention_heads=2,window_length=20,window_overlap=4,"
    "codebook_size=12,codebook_dim=4,decoder_hidden_size=16,decoder_intermediate_size=24,decoder_num_hidden_layers=1,"
    "decoder_num_attention_heads=2"
)
CLASSIFIER = (
    "hidden_size=16,intermediate_size=24,num_hidden_layers=1,num_attention_heads=2,task_hidden_size=16,"
    "task_num_attention_heads=2,task_intermediate_size=24,classifier_proj_size=16"
)
QUICK = [
    "--disable_tqdm",
    "True",
    "--use_cpu",
    "True",
    "--report_to",
    "none",
    "--push_to_hub",
    "True",
    "--logging_steps",
    "1",
]


def upload(model, folder, hub, name, **settings):
    api = HfApi(endpoint=hub.url, token="hf_alice")
    model.save_pretrained(folder)
    HEARFeatureExtractor().save_pretrained(folder)
    api.create_repo(name, exist_ok=True, **settings)
    api.upload_folder(repo_id=name, folder_path=folder)
    return api


@pytest.fixture(scope="module")
def models():
    """Two models of other weights: of the tag v1, and of main and of the private repository."""
    first, second = small_model(), small_model()
    with torch.no_grad():
        second.classifier.out_proj.bias += torch.arange(7.0)
    return first, second


@pytest.fixture(scope="module")
def found(hub, models, tmp_path_factory):
    """What one process without `hear_hf` finds of two repositories."""
    home = tmp_path_factory.mktemp("elsewhere")
    with pytest.MonkeyPatch.context() as monkeypatch:
        connect(hub, monkeypatch, home)
        api = upload(models[0], home / "first", hub, "alice/hear")
        api.create_tag("alice/hear", tag="v1")
        upload(models[1], home / "second", hub, "alice/hear")
        upload(models[1], home / "second", hub, "alice/hidden", private=True)
        np.save(home / "clip.npy", noise(16_000).numpy())
        environment = os.environ | {"HF_HOME": str(home / "home")}
        del environment["HF_TOKEN"]
        command = [sys.executable, "-c", LOAD]
        result = subprocess.run(command, cwd=home, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return json.loads((home / "found.json").read_text())


def expected_scores(model):
    probabilities = model(noise(16_000)[None]).logits.softmax(-1)[0].tolist()
    return pytest.approx({model.config.id2label[i]: p for i, p in enumerate(probabilities)}, abs=1e-5)


def test_the_pipeline_loads_a_repository_where_the_package_is_absent(found, models):
    assert found["main"] == expected_scores(models[1])
    assert not found["package"]


def test_a_tag_gives_the_weights_of_its_commit(found, models):
    assert found["v1"] == expected_scores(models[0])
    assert found["v1"] != expected_scores(models[1])


def test_a_private_repository_loads_with_its_owner_s_token_alone(found, models):
    assert found["hidden"] == expected_scores(models[1])
    assert "alice/hidden" in found["without a token"] and "alice/hidden" in found["with another's token"]


@pytest.mark.parametrize("auto", [True, False])
@pytest.mark.parametrize("file", ["model.safetensors.index.json", "other.safetensors.index.json", "config.json"])
@pytest.mark.parametrize("place", ["../{}", "{folder}/{}"])
def test_no_weights_outside_a_repository_are_read_whatever_its_files_name(hub, tmp_path, place, file, auto):
    folder = tmp_path / "model"
    small_model().save_pretrained(folder, max_shard_size="200KB")
    index = json.loads((folder / "model.safetensors.index.json").read_text())
    config = json.loads((folder / "config.json").read_text())
    first = sorted(set(index["weight_map"].values()))[0]
    elsewhere = place.format((folder / first).rename(tmp_path / first).name, folder=tmp_path)
    if file == "config.json":
        config["transformers_weights"] = elsewhere
    else:
        index["weight_map"] = {key: elsewhere if name == first else name for key, name in index["weight_map"].items()}
        (folder / "model.safetensors.index.json").unlink()
        (folder / file).write_text(json.dumps(index))
    if file == "other.safetensors.index.json":
        config["transformers_weights"] = file
    (folder / "config.json").write_text(json.dumps(config))
    hub.create("alice/evil", files={path.name: path.read_bytes() for path in folder.iterdir()})
    loader = AutoModelForAudioClassification if auto else HEARForAudioClassification
    with pytest.raises(ValueError, match=f"{file} must name weights beside it, found"):
        loader.from_pretrained("alice/evil", cache_dir=tmp_path / "cache")


def test_a_variant_in_shards_is_loaded_from_a_repository(hub, tmp_path):
    model = small_model()
    model.save_pretrained(tmp_path, max_shard_size="200KB", variant="half")
    hub.create("alice/shards", files={path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()})
    loaded = HEARForAudioClassification.from_pretrained("alice/shards", variant="half", cache_dir=tmp_path / "cache")
    assert all(torch.equal(loaded.state_dict()[name], value) for name, value in model.state_dict().items())


@pytest.fixture
def tones(tmp_path):
    for label, frequency in (("<b>low", 200), ("high", 3000)):
        for i in range(4):
            write_tone(tmp_path / "tones" / label / f"{i}.wav", frequency, 0.2 + 0.025 * i)
    return tmp_path / "tones"


def assert_own_card(hub, name, folder):
    files = hub.repositories["models", name].main.files
    card = files["README.md"].decode()
    assert card == (folder / "README.md").read_text() and TRAINER_DRAFT not in card
    assert f'"{name}"' in card and "path/or/repository" not in card and "kawano2026hear" in card
    return files


def test_fine_tuning_with_push_to_hub_leaves_our_card_and_plots_on_the_hub(tones, hub, tmp_path):
    arguments = ["--data_dir", tones, "--output_dir", tmp_path / "run", "--hub_model_id", "alice/tones"]
    arguments += ["--num_train_epochs", 1, "--config_overrides", CLASSIFIER, "--validation_share", 0.25]
    finetune.main([*map(str, arguments), *QUICK])
    files = assert_own_card(hub, "alice/tones", tmp_path / "run")
    assert {"model.safetensors", "modeling_hear.py", "confusion_matrix.png"} <= set(files)
    assert b"model-index" in files["README.md"] and b"`<b>low`" in files["README.md"]


def test_a_run_that_cannot_be_published_says_what_it_kept_and_how_to_publish_it(tones, hub, tmp_path, monkeypatch):
    arguments = ["--data_dir", tones, "--output_dir", tmp_path / "my run", "--hub_model_id", "alice/tones"]
    arguments += ["--max_steps", 1, "--config_overrides", CLASSIFIER, "--validation_share", 0.25]
    hub.fail("POST .*/commit/", status=503)
    with pytest.raises(SystemExit) as error:
        finetune.main([*map(str, arguments), *QUICK, "--hub_private_repo", "True"])
    message = str(error.value)
    assert "an error of its own (503)" in message and f"plots are in {tmp_path}/my run. To publish them: " in message
    command = shlex.split(message.rpartition("To publish them: python ")[2])
    hub.failures.clear()
    assert command[0] == "examples/push_to_hub.py"
    push_to_hub.main(command[1:])
    assert hub.repositories["models", "alice/tones"].private
    assert_own_card(hub, "alice/tones", tmp_path / "my run")


def test_pretraining_with_push_to_hub_leaves_our_card_and_plots_on_the_hub(tones, hub, tmp_path):
    arguments = ["--data_dir", tones, "--output_dir", tmp_path / "run", "--hub_model_id", "alice/quantizer"]
    arguments += ["--max_steps", 1, "--config_overrides", QUANTIZER, "--validation_share", 0.25]
    train_quantizer.main([*map(str, arguments), *QUICK])
    files = assert_own_card(hub, "alice/quantizer", tmp_path / "run")
    assert {"model.safetensors", "modeling_hear_quantizer.py", "codes.png"} <= set(files)


def test_only_data_of_the_hub_are_linked_by_a_card(tmp_path):
    assert hub_datasets(DataArguments(dataset_name="alice/tones")) == ["alice/tones"]
    assert hub_datasets(DataArguments(dataset_name=str(tmp_path))) is None
    assert hub_datasets(DataArguments(data_dir="tones")) is None
