"""`examples/push_to_hub.py` on small models, against a Hub on the loopback interface: what is uploaded."""

import json
import re
import sys

import pytest
from huggingface_hub import HfApi
from transformers import HubertConfig, HubertForSequenceClassification, Wav2Vec2FeatureExtractor

from golden import SMALL_QUANTIZER, golden_model
from hear_hf import HEARFeatureExtractor
from hear_hf.sharing import checks as hub_checks
from helpers import SMALL, small_model
from local_hub import connect
from original_layout import PRETRAINING, TOKENIZER_TRAINING
from pushing import REPOSITORY, edit, push, refused


def test_a_folder_becomes_a_repository_in_one_commit(folder, hub, loads_elsewhere, capsys):
    push(folder)
    repository = hub.repositories[REPOSITORY]
    assert len(repository.commits) == 2  # the Hub's own first one, and ours
    assert repository.main.files["config.json"] == (folder / "config.json").read_bytes()
    assert sum(path.endswith(".safetensors") for path in repository.main.files) > 1
    assert loads_elsewhere[-1] == ("alice/hear", repository.main.sha, "hf_alice")
    assert "Published" in capsys.readouterr().out


def test_a_dry_run_needs_neither_network_nor_token(folder, hub, monkeypatch, tmp_path, capsys):
    connect(hub, monkeypatch, tmp_path, token=None)
    push(folder, "--dry-run")
    assert not hub.requests and not hub.repositories
    assert "model.safetensors.index.json" in capsys.readouterr().out


def test_a_folder_without_any_code_gets_the_package_s_and_keeps_its_licences(folder, hub):
    for path in folder.glob("*.py"):
        path.unlink()
    (folder / "LICENCES.md").write_text("whose sounds\n")
    push(folder)
    files = hub.repositories[REPOSITORY].main.files
    assert {"masking_hear.py", "feature_extraction_hear.py", "LICENCES.md"} <= set(files)
    assert files["modeling_hear.py"] == (hub_checks.PACKAGE / "modeling_hear.py").read_bytes()


def test_the_folder_that_an_older_transformers_wrote_into_the_configuration_stays_here(folder, hub):
    edit(folder, _name_or_path="/home/alice/secret")
    push(folder)
    content = hub.repositories[REPOSITORY].main.files["config.json"]
    assert b"secret" not in content and json.loads(content)["model_type"] == "hear"


def test_an_update_removes_weights_and_code_of_earlier_uploads(folder, hub, capsys):
    old = {"model.safetensors": b"old", "old_hear.py": b"", "pytorch_model.bin": b"", "training_args.bin": b""}
    kept = {"notes.md": b"", "handler.py": b""}
    hub.create("alice/hear", files=old | kept)
    push(folder)
    files = hub.repositories[REPOSITORY].main.files
    assert set(kept) < set(files) and not set(old) & set(files)
    assert "old_hear.py" in capsys.readouterr().out


def test_pushing_the_same_again_makes_no_commit(folder, hub):
    push(folder)
    push(folder)
    assert len(hub.repositories[REPOSITORY].commits) == 2


def test_a_revision_leaves_main_as_it_was(folder, hub):
    before = hub.create("alice/hear").main.sha
    HfApi(endpoint=hub.url, token="hf_alice").create_branch("alice/hear", branch="trial")
    push(folder, "--revision", "trial")
    assert hub.repositories[REPOSITORY].main.sha == before
    assert "config.json" in hub.repositories[REPOSITORY].find("trial").files


def test_a_pull_request_to_somebody_else_leaves_main_as_it_was(folder, hub, monkeypatch, tmp_path, capsys):
    before = hub.create("alice/hear").main.sha
    connect(hub, monkeypatch, tmp_path, token="hf_bob")
    push(folder, "--create-pr")
    repository = hub.repositories[REPOSITORY]
    assert repository.main.sha == before and "config.json" in repository.find("refs/pr/1").files
    assert "/alice/hear/discussions/1" in capsys.readouterr().out


def test_tags_name_the_commit_and_the_history_says_the_message(folder, hub):
    push(folder, "--tag", "v1", "best", "--commit_message", "As measured")
    repository = hub.repositories[REPOSITORY]
    assert repository.find("v1") is repository.find("best") is repository.main
    assert repository.main.title == "As measured"


def test_only_parts_of_the_model_go_up_and_the_rest_is_listed(folder, hub, capsys):
    (folder / "checkpoint-10").mkdir()
    (folder / "checkpoint-10" / "optimizer.pt").write_bytes(b"0")
    strays = [
        "optimizer.pt",
        "training_args.bin",
        "model.pth",
        ".secret",
        "notes.txt",
        "events.out.tfevents.1",
        "x.py",
    ]
    for name in strays:
        (folder / name).write_bytes(b"0")
    (folder / "huge.png").write_bytes(bytes(hub_checks.MAX_REPORT_SIZE + 1))
    push(folder)
    output = capsys.readouterr().out.partition("Kept back:")[2]
    assert all(name in output for name in [*strays, "checkpoint-10/", "huge.png"])
    files = set(hub.repositories[REPOSITORY].main.files)
    expected = {path.name for path in folder.iterdir()} - {*strays, "checkpoint-10", "huge.png"}
    assert files == expected | {"README.md", ".gitattributes"}


def test_every_class_of_the_package_passes_the_checks(tmp_path, loads_elsewhere):
    training = golden_model(TOKENIZER_TRAINING.main, **SMALL_QUANTIZER)
    classifier = small_model()
    models = [classifier, classifier.hear, golden_model(PRETRAINING.main, **SMALL, codebook_size=64), training]
    for model in [*models, training.quantizer]:
        folder = tmp_path / type(model).__name__
        model.save_pretrained(folder)
        HEARFeatureExtractor().save_pretrained(folder)
        push(folder, "--dry_run")
    assert len(loads_elsewhere) == 5


def test_a_model_and_its_quantizer_are_downloaded_and_compared_without_the_package(hub, tmp_path, real_loads, capsys):
    training = golden_model(TOKENIZER_TRAINING.main, **SMALL_QUANTIZER)
    model = golden_model(PRETRAINING.main, **SMALL, codebook_size=64)
    for part, folder in ((model, tmp_path / "run"), (training.quantizer, tmp_path / "run" / "quantizer")):
        part.save_pretrained(folder)
        HEARFeatureExtractor().save_pretrained(folder)
    push(tmp_path / "run", "--private")
    assert hub.repositories[REPOSITORY].private
    assert any("/quantizer/model.safetensors" in request for request in hub.requests if request.startswith("GET"))
    assert "The downloaded model gives the same outputs." in capsys.readouterr().out


def test_another_audio_classifier_of_transformers_goes_up_too(hub, tmp_path, loads_elsewhere):
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    convolutions = {"conv_dim": (32, 32), "conv_kernel": (10, 3), "conv_stride": (5, 2)}
    config = HubertConfig(**sizes, **convolutions, num_conv_pos_embedding_groups=2, num_labels=3)
    HubertForSequenceClassification(config).save_pretrained(tmp_path / "hubert")
    Wav2Vec2FeatureExtractor().save_pretrained(tmp_path / "hubert")
    push(tmp_path / "hubert")
    card = hub.repositories[REPOSITORY].main.files["README.md"].decode()
    assert "HubertForSequenceClassification" in card and "HEAR" not in card


@pytest.fixture
def graphs(folder):
    """The folder, with graphs by name alone and one that export_onnx.py does not write."""
    (folder / "onnx").mkdir()
    for name in ("model.onnx", "model_fp16.onnx", "model_quantized.onnx", "model_q4.onnx"):
        (folder / "onnx" / name).write_bytes(name.encode())
    return folder


@pytest.fixture
def check_graphs(monkeypatch):
    """Where the check of graphs, which is tested with the export, puts the folders that it was given."""
    pytest.importorskip("onnx", reason="graphs need `pip install hear_hf[onnx]`")
    pytest.importorskip("onnxruntime", reason="graphs need `pip install hear_hf[onnx]`")
    pytest.importorskip("onnxscript", reason="graphs need `pip install hear_hf[onnx]`")
    from hear_hf.deployment import onnx_export

    assert set(onnx_export.FILES.values()) == set(hub_checks.GRAPHS) and onnx_export.FOLDER == hub_checks.ONNX
    given = []
    monkeypatch.setattr(onnx_export, "check_exported", given.append)
    return given


def test_graphs_go_up_beside_the_weights_once_they_are_checked(graphs, hub, check_graphs, capsys):
    push(graphs, "--onnx")
    files = hub.repositories[REPOSITORY].main.files
    assert {name for name in files if name.startswith("onnx/")} == {f"onnx/{name}" for name in hub_checks.GRAPHS}
    assert files["onnx/model.onnx"] == b"model.onnx" and "config.json" in files
    assert len(check_graphs) == 1 and graphs not in check_graphs  # the staged copy
    assert "onnx/model_q4.onnx" in capsys.readouterr().out.partition("Kept back:")[2]


def test_graphs_that_fail_the_check_keep_the_model_back(graphs, hub, check_graphs, monkeypatch):
    def refuse(folder):
        raise ValueError("onnx/model.onnx must have the model's logits")

    monkeypatch.setattr(sys.modules["hear_hf.deployment.onnx_export"], "check_exported", refuse)
    assert "must have the model's logits" in refused(graphs, "--onnx")
    assert not hub.requests


def test_a_link_among_the_graphs_that_leads_out_is_refused(graphs, hub, check_graphs, tmp_path):
    (tmp_path / "private.onnx").write_bytes(b"0")
    (graphs / "onnx" / "model.onnx").unlink()
    (graphs / "onnx" / "model.onnx").symlink_to(tmp_path / "private.onnx")
    assert "Links must lead to visible files of their own folder" in refused(graphs, "--onnx")
    assert not hub.requests


def test_without_the_option_graphs_stay_here_and_those_of_older_weights_are_removed(graphs, hub, capsys):
    hub.create("alice/hear", files={"onnx/model.onnx": b"of older weights", "onnx/model_q4.onnx": b"somebody's"})
    push(graphs)
    files = hub.repositories[REPOSITORY].main.files
    assert {name for name in files if name.startswith("onnx/")} == {"onnx/model_q4.onnx"}
    assert re.search(r"onnx/ +give --onnx", capsys.readouterr().out)
