"""Adapters of the `peft` package on HEAR: what is reloaded beside what was trained."""

import json

import pytest
import torch
from transformers import (
    AutoModelForAudioClassification,
    HubertConfig,
    HubertForSequenceClassification,
)

from hear_hf import HEARForAudioClassification
from hear_hf.adapters import load_adapter
from helpers import noise, small_model

peft = pytest.importorskip("peft", reason="adapters need the extra `peft`")

PROJECTIONS = ["q_proj", "v_proj"]
TASKS = [None, "SEQ_CLS", "FEATURE_EXTRACTION"]


@pytest.fixture
def batch():
    clips = torch.stack([noise(8000, i) for i in range(4)])
    return {"input_values": clips, "attention_mask": torch.ones_like(clips), "labels": torch.tensor([0, 3, 6, 3])}


def trained(config, batch, steps=3):
    """A model with an adapter that has learned for a few steps."""
    model = peft.get_peft_model(small_model(), config).train()
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    for _ in range(steps):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(logits(model, batch), batch["labels"]).backward()
        optimizer.step()
    return model


def logits(model, batch):
    return model(input_values=batch["input_values"], attention_mask=batch["attention_mask"]).logits


@torch.no_grad()
def assert_reloaded_is_trained(model, batch, folder):
    expected = logits(model.eval(), batch)
    assert not torch.allclose(expected, logits(small_model(), batch), atol=1e-2)
    model.save_pretrained(folder)
    loaded = peft.PeftModel.from_pretrained(small_model(), folder).eval()
    torch.testing.assert_close(logits(loaded, batch), expected, rtol=0, atol=1e-6)
    torch.testing.assert_close(logits(loaded.merge_and_unload(), batch), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("settings", [{}, {"modules_to_save": ["classifier"]}], ids=["head frozen", "head trained"])
def test_a_reloaded_adapter_is_the_trained_one(task, settings, batch, tmp_path):
    config = peft.LoraConfig(task_type=task, target_modules=PROJECTIONS, **settings)
    assert_reloaded_is_trained(trained(config, batch), batch, tmp_path)


@pytest.mark.parametrize(
    "settings", [{"use_dora": True}, {"target_modules": ["conv"]}], ids=["DoRA", "feature encoder"]
)
def test_other_layers_and_kinds_of_adapters_work(settings, batch, tmp_path):
    config = peft.LoraConfig(**{"target_modules": PROJECTIONS, "modules_to_save": ["classifier"]} | settings)
    assert_reloaded_is_trained(trained(config, batch), batch, tmp_path)


def test_a_sequence_classifier_s_adapter_finds_the_head_by_itself(batch):
    model = peft.get_peft_model(small_model(), peft.LoraConfig(task_type="SEQ_CLS", target_modules=PROJECTIONS))
    learning = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert any("classifier.modules_to_save.default.dense.weight" in name for name in learning)
    loss = model(input_values=batch["input_values"], labels=batch["labels"]).loss
    assert loss.isfinite()


def small_hubert():
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    convolutions = {"conv_dim": (32, 32), "conv_kernel": (10, 3), "conv_stride": (5, 2)}
    return HubertForSequenceClassification(HubertConfig(**sizes, **convolutions, num_conv_pos_embedding_groups=2))


@pytest.mark.parametrize("make", [small_model, small_hubert])
@pytest.mark.parametrize("place", ["../{}", "{folder}/{}"])
def test_no_weights_outside_an_adapter_s_base_model_are_read(make, place, tmp_path):
    base, model = tmp_path / "base", make()
    model.save_pretrained(base, max_shard_size="20KB")
    adapted = peft.get_peft_model(model, peft.LoraConfig(target_modules=PROJECTIONS))
    adapted.save_pretrained(tmp_path / "adapter")
    path = tmp_path / "adapter" / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"base_model_name_or_path": str(base)}))
    index = json.loads((base / "model.safetensors.index.json").read_text())
    first = min(index["weight_map"].values())
    (base / first).rename(tmp_path / first)
    other = place.format(first, folder=tmp_path)
    index["weight_map"] = {key: other if name == first else name for key, name in index["weight_map"].items()}
    (base / "model.safetensors.index.json").write_text(json.dumps(index))
    loaders = [load_adapter]
    if make is small_model:
        loaders += [HEARForAudioClassification.from_pretrained, AutoModelForAudioClassification.from_pretrained]
    for load in loaders:
        with pytest.raises(ValueError, match="model.safetensors.index.json must name weights beside it"):
            load(tmp_path / "adapter")
