"""`examples/push_to_hub.py` on small models, against a Hub on the loopback interface."""

import json
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
import soundfile
import torch
import yaml
from huggingface_hub import HfApi, ModelCard
from safetensors.torch import load_file, save_file
from transformers import HubertConfig, HubertForSequenceClassification, Wav2Vec2FeatureExtractor, modelcard

import hub_checks
import hub_upload
import model_cards
import push_to_hub
from golden import SMALL_QUANTIZER, golden_model
from hear_hf import HEARFeatureExtractor
from helpers import SMALL, noise, small_model
from local_hub import LocalHub, connect
from original_layout import PRETRAINING, TOKENIZER_TRAINING

LABELS = ["dog", "rain", "siren", "`tick`", "a: b # c", "---\nlicense: x", "<b>loud</b>|"]
REPOSITORY = ("models", "alice/hear")


@pytest.fixture(scope="module")
def hub():
    with LocalHub() as hub:
        yield hub


@pytest.fixture(autouse=True)
def online(hub, monkeypatch, tmp_path):
    hub.clear()
    connect(hub, monkeypatch, tmp_path)


@pytest.fixture(autouse=True)
def loads_elsewhere(monkeypatch, request):
    """The loads in other processes, of which one test makes real ones; here only which were asked for."""
    asked = []
    if "real_loads" not in request.fixturenames:
        monkeypatch.setattr(hub_checks, "compare", lambda models, *place: asked.append(place))
        monkeypatch.setattr(push_to_hub, "compare", hub_checks.compare)
    return asked


@pytest.fixture
def real_loads():
    """Named by a test that loads models in other processes."""


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "run"
    model = small_model(id2label=dict(enumerate(LABELS)), label2id={name: i for i, name in enumerate(LABELS)})
    model.save_pretrained(folder, max_shard_size="200KB")
    HEARFeatureExtractor().save_pretrained(folder)
    (folder / "test_results.json").write_text(json.dumps({"test_accuracy": 0.875, "test_loss": 0.4, "epoch": 3.0}))
    return folder


@pytest.fixture
def folder(saved, tmp_path):
    return shutil.copytree(saved, tmp_path / "run")


def push(folder, *arguments, to="alice/hear"):
    push_to_hub.main([str(folder), to, *map(str, arguments)])


def refused(folder, *arguments, to="alice/hear"):
    """The message of a push that fails."""
    with pytest.raises(SystemExit) as failure:
        push(folder, *arguments, to=to)
    assert isinstance(failure.value.code, str)  # Python prints it and exits with 1
    return failure.value.code


def edit(folder, file="config.json", **changes):
    config = json.loads((folder / file).read_text())
    (folder / file).write_text(json.dumps(config | changes))


# Uploads


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


def test_an_update_removes_weights_and_code_of_earlier_uploads(folder, hub, capsys):
    old = {"model.safetensors": b"old", "old_hear.py": b"", "pytorch_model.bin": b""}
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


# What goes up


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
    output = capsys.readouterr().out.partition("Stays here:")[2]
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


# Checks


def test_a_folder_without_a_model_is_refused(tmp_path):
    assert "found no config.json" in refused(tmp_path)


@pytest.mark.parametrize("text", ["{", "[]"])
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


def test_code_that_does_not_run_elsewhere_is_refused_in_one_message_with_exit_code_1(folder, hub):
    with (folder / "masking_hear.py").open("a") as file:
        file.write("\nimport hear_hf\n")
    command = [sys.executable, push_to_hub.__file__, str(folder), "alice/hear"]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 1 and "Traceback" not in result.stderr
    assert "must load where hear_hf is absent" in result.stderr.splitlines()[-1]
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
    assert "must take the model's rate, 16000 Hz, found: 32000" in refused(folder)


# The model card


def card_of(hub, kind="models", name="alice/hear"):
    return ModelCard(hub.repositories[kind, name].main.files["README.md"].decode())


def test_a_new_card_holds_metadata_results_and_the_repository_s_name(folder, hub):
    push(folder, "--datasets", "ashraq/esc50", "--base_model", "alice/base", "--license", "cc-by-4.0")
    data = card_of(hub).data
    assert (data.license, data.library_name, data.pipeline_tag) == (
        "cc-by-4.0",
        "transformers",
        "audio-classification",
    )
    assert (data.datasets, data.base_model, data.metrics) == (["ashraq/esc50"], "alice/base", ["accuracy"])
    assert (data.eval_results[0].metric_type, data.eval_results[0].metric_value) == ("accuracy", 0.875)
    text = card_of(hub).text
    assert 'model="alice/hear"' in text and "## Limits" in text and "kawano2026hear" in text


def test_labels_are_neither_markup_nor_metadata(folder, hub):
    push(folder)
    card = card_of(hub)
    assert card.data.license == "mit"
    assert "\n---\n" not in card.text and "``` <b>" not in card.text
    assert "`<b>loud</b>|`" in card.text and "`` `tick` ``" in card.text and "`--- license: x`" in card.text


def test_a_code_span_shows_any_text_as_it_is():
    assert (
        model_cards.code_span("a``b`c") == "``` a``b`c ```"
        and model_cards.code_span("plain\nlines") == "`plain lines`"
    )


def test_every_section_that_cards_take_is_in_the_model_card():
    templates = [path.read_text() for path in (model_cards.CLASSIFIER_TEMPLATE, model_cards.PRETRAINING_TEMPLATE)]
    taken = {title for text in templates for title in re.findall(r'sections\["(.+?)"\]', text)}
    sections = model_cards.static_sections()
    assert len(taken) == 4 and all(sections[title] for title in taken)
    assert not re.search(r"\]\((?!https?:)", "".join(sections.values()))


def test_a_card_of_the_user_s_own_is_kept_and_completed(folder, hub):
    own = "---\nlicense: apache-2.0\ntags: [birds]\n---\n# Mine\n\nLoad it from `path/or/repository`.\n"
    (folder / "README.md").write_text(own)
    push(folder)
    card = card_of(hub)
    assert card.data.license == "apache-2.0" and card.data.library_name == "transformers"
    assert "Load it from `alice/hear`." in card.text and "## Limits" not in card.text


def test_the_draft_that_trainer_writes_is_replaced(folder, hub):
    draft = f"---\nlicense: mit\n---\n<!-- This model card has been {push_to_hub.TRAINER_DRAFT}. -->\n# run\n"
    (folder / "README.md").write_text(draft)
    push(folder)
    assert "## Limits" in card_of(hub).text


def test_trainer_writes_the_draft_that_is_looked_for():
    assert push_to_hub.TRAINER_DRAFT in modelcard.AUTOGENERATED_TRAINER_COMMENT


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("---\ntags: [a]\n---\n# A\n\ntext", "no metadata: license"),
        ("---\nlicense: mit\ntags: [a]\n---\n# A\n\n[More Information Needed]", "unfilled"),
        ("---\nlicense: mit\ntags: [a]\n---\n# A\n\n## Limits\n\n## Use\n\nyes", "empty: Limits"),
        ("---\nlicense: mit\ntags: [a]\n---\n# A\n\n![it](absent.png)", "no such image: absent.png"),
        ("---\nlicense: [\n---\n# A\n\ntext", "must be YAML"),
    ],
)
def test_an_incomplete_card_is_refused(folder, hub, text, problem):
    (folder / "README.md").write_text(text)
    assert problem in refused(folder)
    assert not hub.requests


def test_examples_go_up_with_what_the_model_hears_in_them(folder, hub, tmp_path):
    soundfile.write(tmp_path / "knock.wav", noise(16_000).numpy(), 16_000)
    push(folder, "--examples", tmp_path / "knock.wav")
    entry = card_of(hub).data.widget[0]
    assert entry["src"].endswith("alice/hear/resolve/main/samples/knock.flac")
    assert len(entry["output"]) == 3 and {output["label"] for output in entry["output"]} < set(LABELS)
    assert "samples/knock.flac" in hub.repositories[REPOSITORY].main.files


def test_an_example_that_is_no_clip_is_refused(folder, tmp_path):
    soundfile.write(tmp_path / "short.wav", noise(50).numpy(), 16_000)
    assert "must be a clip of sound, found short.wav" in refused(folder, "--examples", tmp_path / "short.wav")
    assert "must be a clip of sound, found config.json" in refused(folder, "--examples", folder / "config.json")


def test_a_card_that_finetune_wrote_only_gets_the_repository_s_name(folder, hub):
    card = model_cards.classifier_card(small_model(), 16_000, "run", {"accuracy": 0.5}, "test", source="`mine`")
    card.save(folder / "README.md")
    push(folder)
    assert card_of(hub).content == card.content.replace("path/or/repository", "alice/hear")


# Refusals and interruptions


def test_without_a_token_it_says_how_to_get_one(folder, hub, monkeypatch, tmp_path):
    connect(hub, monkeypatch, tmp_path, token=None)
    assert "needs a token, found none" in refused(folder)
    assert not hub.repositories


def test_a_wrong_token_is_named_as_the_reason(folder, hub):
    assert "does not accept the token" in refused(folder, "--token", "hf_nobody")
    assert not hub.repositories


def test_a_namespace_of_somebody_else_is_refused(folder, hub):
    message = refused(folder, to="bob/hear")
    assert "does not let this token write to bob/hear" in message and "This changed nothing on the Hub" in message
    assert not hub.repositories


def test_a_repository_of_somebody_else_stays_as_it_was(folder, hub):
    before = hub.create("bob/hear").main.sha
    assert "does not let this token write" in refused(folder, to="bob/hear")
    assert hub.repositories["models", "bob/hear"].main.sha == before


def test_a_private_repository_of_somebody_else_is_refused(folder, hub):
    hub.create("bob/hear", private=True)
    assert "This changed nothing on the Hub" in refused(folder, to="bob/hear")


def test_a_gated_repository_is_named_as_such(folder, hub):
    hub.create("bob/hear", gated=True)
    assert "Access to bob/hear is restricted" in refused(folder, "--create_pr", to="bob/hear")


def test_offline_mode_is_named_as_the_reason(folder, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert "found HF_HUB_OFFLINE=1: unset it" in refused(folder)


def test_a_revision_that_is_missing_is_named(folder, hub):
    hub.create("alice/hear")
    assert "There is no branch trial in alice/hear" in refused(folder, "--revision", "trial")


def test_a_public_repository_is_not_taken_for_a_private_one(folder, hub):
    before = hub.create("alice/hear").main.sha
    assert "exists and is public" in refused(folder, "--private")
    assert hub.repositories[REPOSITORY].main.sha == before


def test_a_taken_tag_is_refused_before_the_upload(folder, hub):
    repository = hub.create("alice/hear")
    repository.refs["refs/tags/v1"] = repository.main.sha
    assert "found: ['v1']" in refused(folder, "--tag", "v1", "v2")
    assert len(repository.commits) == 1


@pytest.mark.parametrize("name", ["hear", "alice/hear/more", "alice/he ar"])
def test_a_name_that_is_none_is_refused(folder, hub, name):
    assert "repository" in refused(folder, to=name)
    assert not hub.requests


BREAKS = [
    ("PUT /lfs", {"at": 2}, "The connection to"),
    ("POST .*/commit/", {}, "The connection to"),
    ("POST .*/preupload", {"status": 503}, "trouble of its own"),
    ("POST .*/lfs/objects/batch", {"status": 507}, "storage of alice/hear is used up"),
    ("POST .*/commit/", {"status": 413}, "too large"),
    (
        "POST .*/commit/",
        {"status": 403, "message": "Private repository storage limit reached"},
        "storage of alice/hear",
    ),
    ("POST .*/commit/", {"status": 412}, "Somebody else has changed"),
    ("POST .*/commit/", {"status": 429}, "asked too often"),
]


@pytest.mark.parametrize(("request_", "failure", "reason"), BREAKS)
def test_an_upload_that_breaks_leaves_the_repository_as_it_was(folder, hub, request_, failure, reason):
    before = hub.create("alice/hear", files={"model.safetensors": b"old"}).main
    hub.fail(request_, **failure)
    message = refused(folder)
    assert reason in message and "This changed nothing on the Hub." in message
    assert hub.repositories[REPOSITORY].main is before


@pytest.mark.parametrize(("request_", "failure", "reason"), BREAKS[:2])
def test_a_repository_made_for_an_upload_that_breaks_is_deleted_again(folder, hub, request_, failure, reason):
    hub.fail(request_, **failure)
    message = refused(folder)
    assert reason in message and "was deleted again" in message
    assert not hub.repositories


def test_an_upload_is_taken_up_again_where_it_broke(folder, hub):
    hub.create("alice/hear")
    hub.fail("PUT /lfs", at=2)
    refused(folder)
    hub.failures.clear()
    hub.requests.clear()
    push(folder)
    num_weights = sum(path.endswith(".safetensors") for path in hub.repositories[REPOSITORY].main.files)
    assert sum(request.startswith("PUT /lfs") for request in hub.requests) < num_weights


def test_an_answer_that_gets_lost_is_not_taken_for_a_failed_commit(folder, hub):
    hub.create("alice/hear")
    hub.fail("POST .*/commit/", after_the_deed=True)
    message = refused(folder)
    assert hub.repositories[REPOSITORY].main.sha in message and "look at" in message


def test_a_commit_by_somebody_else_meanwhile_is_not_overwritten(folder, hub, monkeypatch):
    repository, commit = hub.create("alice/hear"), hub_upload._Upload.commit

    def too_late(self, *args):
        repository.commit({"theirs.txt": b""}, "theirs")
        return commit(self, *args)

    monkeypatch.setattr(hub_upload._Upload, "commit", too_late)
    assert "Somebody else has changed alice/hear since the upload began" in refused(folder)
    assert repository.main.title == "theirs"


def test_a_tag_that_fails_after_the_commit_is_told_apart_from_a_failed_upload(folder, hub):
    hub.create("alice/hear")
    hub.fail("POST .*/tag/", status=403)
    message = refused(folder, "--tag", "v1")
    assert f"The files are there, as commit {hub.repositories[REPOSITORY].main.sha}" in message


def test_a_repository_that_may_or_may_not_have_been_made_is_not_deleted(folder, hub):
    hub.fail("POST /api/repos/create", after_the_deed=True)
    assert "/alice/hear exists now, it is new and empty." in refused(folder)
    assert REPOSITORY in hub.repositories


def test_a_hub_that_is_gone_is_named(folder, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    assert "The connection to http://127.0.0.1:9 failed or broke" in refused(folder)


def test_a_hub_that_goes_during_an_upload_is_not_said_to_be_unchanged(folder, hub):
    hub.create("alice/hear")
    hub.fail("GET /api/models/alice/hear", at=2)
    hub.fail("POST .*/commit/")
    assert "Files appear all together or not at all" in refused(folder)


def test_interrupting_an_upload_is_no_stack_trace(folder, hub, monkeypatch):
    monkeypatch.setattr(
        "huggingface_hub.HfApi.create_commit", lambda *args, **options: (_ for _ in ()).throw(KeyboardInterrupt)
    )
    assert refused(folder).startswith("Interrupted. The new repository alice/hear was deleted again")


# The Space


@pytest.fixture
def space(tmp_path, monkeypatch):
    folder = tmp_path / "space"
    folder.mkdir()
    (folder / "app.py").write_text("import json\nfrom parts import show\nfrom audio_decoding import decode_audio\n")
    (folder / "parts.py").write_text("show = print\n")
    (folder / "README.md").write_text("---\nsdk: gradio\napp_file: app.py\n---\n# Demo\n")
    monkeypatch.setattr(push_to_hub, "SPACE", folder)
    return folder


def test_the_space_goes_up_with_the_model_s_name_and_what_it_imports(space, hub):
    hub.create("alice/hear")
    push("alice/hear", "--space", to="alice/demo")
    repository = hub.repositories["spaces", "alice/demo"]
    files = repository.main.files
    assert repository.sdk == "gradio" and files["model_id.txt"] == b"alice/hear\n"
    assert {"app.py", "parts.py", "audio_decoding.py"} <= set(files)
    assert yaml.safe_load(files["README.md"].split(b"---")[1])["models"] == ["alice/hear"]


def test_a_space_for_a_model_that_is_not_on_the_hub_is_refused(space, hub):
    assert "found no alice/hear: publish it first" in refused("alice/hear", "--space", to="alice/demo")
    assert not hub.repositories


def test_the_demo_s_imports_all_go_up(tmp_path):
    push_to_hub.stage_space(tmp_path / "staged", "alice/hear")
    files = {path.name for path in (tmp_path / "staged").iterdir()}
    assert {"app.py", "requirements.txt", "README.md", "model_id.txt", "audio_decoding.py"} <= files
