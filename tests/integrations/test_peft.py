"""Adapters of the `peft` package on HEAR: what is reloaded beside what was trained."""

import pytest
import torch

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
