"""`examples/push_to_hub.py` on adapters, against a Hub on the loopback interface."""

import pytest
import torch
from huggingface_hub import constants
from transformers import AutoModelForAudioClassification

from hear_hf import HEARFeatureExtractor
from hear_hf.adapters import load_adapter
from hear_hf.sharing import checks
from helpers import noise, small_model
from pushing import card_of, edit, push, refused

peft = pytest.importorskip("peft", reason="adapters need the extra `peft`")
LABELS = ["bee", "cat", "dog"]


@pytest.fixture
def base(hub, tmp_path, monkeypatch):
    """The name of a whole model on the Hub. What is downloaded goes to a cache of the test's own."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "base"
    small_model().save_pretrained(folder)
    HEARFeatureExtractor().save_pretrained(folder)
    hub.create("alice/base", files={path.name: path.read_bytes() for path in folder.iterdir()})
    return "alice/base"


@pytest.fixture
def adapter(base, tmp_path):
    """The folder of an adapter of it, as `finetune.py --lora_r` leaves it, with labels of its own."""
    model = small_model(num_labels=3, id2label=dict(enumerate(LABELS)), label2id={n: i for i, n in enumerate(LABELS)})
    settings = {"target_modules": ["q_proj", "v_proj"], "modules_to_save": ["classifier"], "init_lora_weights": False}
    adapted = peft.get_peft_model(model, peft.LoraConfig(task_type="SEQ_CLS", **settings))
    folder = tmp_path / "adapter"
    adapted.save_pretrained(folder)
    (folder / "README.md").unlink()  # PEFT's draft
    edit(folder, "adapter_config.json", base_model_name_or_path=base)
    model.config.architectures = ["HEARForAudioClassification"]
    model.config.save_pretrained(folder)
    HEARFeatureExtractor().save_pretrained(folder)
    return folder


def test_an_adapter_is_published_without_its_base_model(adapter, hub, real_loads, tmp_path):
    push(adapter, to="alice/adapter")
    files = hub.repositories["models", "alice/adapter"].main.files
    assert {"adapter_model.safetensors", "adapter_config.json", "config.json", "configuration_hear.py"} <= set(files)
    assert "model.safetensors" not in files
    card = card_of(hub, name="alice/adapter")
    assert (card.data.base_model, card.data.library_name) == ("alice/base", "peft")
    assert "PeftModel.from_pretrained" in card.text and '"alice/base", "alice/adapter"' in card.text


def test_a_base_model_in_a_folder_is_refused_with_both_remedies(adapter, tmp_path):
    edit(adapter, "adapter_config.json", base_model_name_or_path=str(tmp_path / "base"))
    message = refused(adapter, "--dry_run", to="alice/adapter")
    assert "must be on the Hub" in message and "--merge_adapter" in message


@pytest.mark.parametrize("name", ["../base", "~/base", "alice/b`c", "alice/" + "b" * 200])
def test_a_base_model_of_a_name_that_the_hub_cannot_have_is_refused_without_a_traceback(adapter, name):
    edit(adapter, "adapter_config.json", base_model_name_or_path=name)
    assert "must be on the Hub" in refused(adapter, "--dry_run", to="alice/adapter")


def test_a_base_model_that_is_not_on_the_hub_is_refused_without_a_traceback(adapter):
    edit(adapter, "adapter_config.json", base_model_name_or_path="alice/gone")
    assert "There is no model alice/gone" in refused(adapter, "--dry_run", to="alice/adapter")


def test_foreign_code_of_the_base_model_is_shown_and_refused(adapter, hub, capsys):
    files = hub.repositories["models", "alice/base"].main.files
    changed = files["modeling_hear.py"] + b"print('hello')\n"
    hub.create("alice/other", files=files | {"modeling_hear.py": changed})
    edit(adapter, "adapter_config.json", base_model_name_or_path="alice/other")
    assert "other code in modeling_hear.py" in refused(adapter, "--dry_run", to="alice/adapter")
    assert "print('hello')" in capsys.readouterr().out


def test_a_base_model_that_changes_after_its_check_is_not_run(adapter, hub, real_loads, monkeypatch, tmp_path):
    repository, trace, check = hub.repositories["models", "alice/base"], tmp_path / "ran", checks.check_code
    files = repository.main.files

    def check_and_change(folder):
        check(folder)
        if folder.parent.name == "snapshots":  # the base model's
            added = f"\nopen({str(trace)!r}, 'w')\n".encode()
            repository.commit(files | {"modeling_hear.py": files["modeling_hear.py"] + added}, "later")

    monkeypatch.setattr(checks, "check_code", check_and_change)
    push(adapter, to="alice/adapter")
    assert repository.main.title == "later" and not trace.exists()


@pytest.mark.parametrize("change", [{"r": 10**9}, {"rank_pattern": {"q_proj": 10**9}}, {"r": "8"}])
@pytest.mark.parametrize("load", [load_adapter, AutoModelForAudioClassification.from_pretrained])
def test_an_adapter_of_an_absurd_rank_is_refused_before_anything_is_built(adapter, change, load, monkeypatch):
    monkeypatch.setattr(peft.tuners.lora.LoraLayer, "update_layer", None)
    edit(adapter, "adapter_config.json", **change)
    with pytest.raises(ValueError, match="rank `r` of an adapter must be from 1 to 1024, found: "):
        load(adapter)
    assert "must be from 1 to 1024" in refused(adapter, "--dry_run", to="alice/adapter")


def test_an_adapter_of_an_absurd_rank_on_the_hub_is_refused_too(adapter, hub):
    edit(adapter, "adapter_config.json", r=10**9)
    hub.create("alice/giant", files={path.name: path.read_bytes() for path in adapter.iterdir()})
    with pytest.raises(ValueError, match="rank `r` of an adapter must be from 1 to 1024, found: "):
        AutoModelForAudioClassification.from_pretrained("alice/giant")


def test_an_adapter_without_some_of_its_weights_is_refused(adapter):
    edit(adapter, "adapter_config.json", target_modules=["q_proj", "k_proj"])
    assert "found missing" in refused(adapter, "--dry_run", to="alice/adapter")


def test_an_adapter_of_the_hub_s_base_model_loads(adapter):
    with torch.no_grad():
        assert load_adapter(adapter)(input_values=noise(8000)[None]).logits.shape == (1, 3)
