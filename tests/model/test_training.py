"""Training: losses by problem type, checkpointing, freezing, and the batches and clips that break naive code."""

import pytest
import torch

from helpers import noise, ragged_batch, small_model

NO_DROPOUT = dict.fromkeys(
    ["hidden_dropout", "activation_dropout", "attention_dropout", "task_dropout", "classifier_dropout"], 0.0
)


# The name it has in transformers 5.4; its successor's is of 5.2x.
pytestmark = pytest.mark.filterwarnings("ignore:`gradient_checkpointing_enable` is deprecated:FutureWarning")


@pytest.fixture
def batch():
    waveform, mask = ragged_batch([noise(12_000, 1), noise(4000, 2), noise(20_000, 3)])
    return {"input_values": waveform, "attention_mask": mask, "labels": torch.tensor([0, 3, 6])}


def gradients(model, batch):
    model.zero_grad()
    loss = model(**batch).loss
    loss.backward()
    return loss, {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def test_every_parameter_learns(model, batch):
    loss, found = gradients(model.train(), batch)
    assert loss.isfinite()
    assert found.keys() == dict(model.named_parameters()).keys()
    assert all(gradient.isfinite().all() and gradient.count_nonzero() > 0 for gradient in found.values())


@pytest.mark.parametrize("num_samples", [8000, 40_000], ids=["one window", "several windows"])
def test_gradient_checkpointing_changes_neither_loss_nor_gradients(model, num_samples):
    batch = {"input_values": noise(num_samples).repeat(2, 1), "labels": torch.tensor([1, 2])}
    torch.manual_seed(3)
    loss, expected = gradients(model.train(), batch)
    model.gradient_checkpointing_enable({"use_reentrant": False})
    torch.manual_seed(3)
    checkpointed_loss, found = gradients(model, batch)
    torch.testing.assert_close(checkpointed_loss, loss)
    torch.testing.assert_close(found, expected)


def test_gradient_checkpointing_recomputes_the_layers(model, batch):
    calls = []
    for layer in model.hear.acoustic_model.layers:
        layer.attention.register_forward_hook(lambda *_: calls.append(1))
    model.train().gradient_checkpointing_enable({"use_reentrant": False})
    loss = model(**batch).loss
    num_calls = len(calls)
    loss.backward()
    assert len(calls) == 2 * num_calls


def test_the_single_label_loss_is_cross_entropy(model, batch):
    outputs = model(**batch)
    expected = torch.nn.functional.cross_entropy(outputs.logits, batch["labels"])
    torch.testing.assert_close(outputs.loss, expected)
    assert model.config.problem_type == "single_label_classification"  # as told by the labels' type


def test_the_multi_label_loss_is_binary_cross_entropy(batch):
    model = small_model(problem_type="multi_label_classification")
    batch["labels"] = torch.rand(3, 7).round()
    outputs = model(**batch)
    expected = torch.nn.functional.binary_cross_entropy_with_logits(outputs.logits, batch["labels"])
    torch.testing.assert_close(outputs.loss, expected)


@pytest.mark.parametrize("num_labels", [1, 7])
def test_the_regression_loss_is_the_mean_squared_error(batch, num_labels):
    model = small_model(problem_type="regression", num_labels=num_labels)
    batch["labels"] = torch.randn(3, num_labels).squeeze(-1)
    outputs = model(**batch)
    expected = torch.nn.functional.mse_loss(outputs.logits.squeeze(-1), batch["labels"])
    torch.testing.assert_close(outputs.loss, expected)


def test_a_frozen_feature_encoder_gets_no_gradient_and_the_rest_does(model, batch):
    model.freeze_feature_encoder()
    _, found = gradients(model.train(), batch)
    frozen = {
        name for name in dict(model.named_parameters()) if name.startswith("hear.acoustic_model.feature_encoder")
    }
    assert len(frozen) == 2
    assert found.keys() == dict(model.named_parameters()).keys() - frozen


def test_a_frozen_base_model_leaves_the_head_to_learn(model, batch):
    model.freeze_base_model()
    _, found = gradients(model.train(), batch)
    assert found.keys() == {name for name, _ in model.named_parameters() if name.startswith("classifier.")}


def test_a_training_batch_of_one_clip_is_normalised_by_the_running_statistics(batch):
    model = small_model(**NO_DROPOUT)
    one = {"input_values": batch["input_values"][2:], "labels": batch["labels"][2:]}
    expected, mean = model(**one).loss, model.classifier.batch_norm.running_mean.clone()
    loss, found = gradients(model.train(), one)
    torch.testing.assert_close(loss, expected)
    assert all(gradient.isfinite().all() for gradient in found.values())
    assert torch.equal(model.classifier.batch_norm.running_mean, mean)


def test_a_training_batch_of_two_clips_is_normalised_by_its_own(batch):
    model = small_model(**NO_DROPOUT).train()
    mean = model.classifier.batch_norm.running_mean.clone()
    outputs = model(**batch)
    assert not torch.allclose(model.classifier.batch_norm.running_mean, mean)
    assert not torch.allclose(outputs.logits, model.eval()(**batch).logits)


def test_a_training_batch_is_the_same_whatever_its_padding_holds(batch):
    model = small_model(**NO_DROPOUT).train()
    _, expected = gradients(model, batch)
    batch["input_values"] = batch["input_values"].where(batch["attention_mask"].bool(), torch.nan)
    _, found = gradients(model, batch)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("num_samples", [201, 3200, 30_000])
@pytest.mark.parametrize("fill", [0.0, 0.5, 1e-8])
def test_silent_and_constant_clips_have_finite_gradients(model, fill, num_samples):
    waveform = torch.full((2, num_samples), fill, requires_grad=True)
    _, found = gradients(model.train(), {"input_values": waveform, "labels": torch.tensor([0, 1])})
    assert waveform.grad.isfinite().all()
    assert all(gradient.isfinite().all() for gradient in found.values())


@pytest.mark.parametrize("num_samples", [201, 320, 479])
def test_a_clip_of_one_frame_has_finite_gradients(model, num_samples):
    waveform = noise(num_samples).repeat(2, 1).requires_grad_()
    _, found = gradients(model.train(), {"input_values": waveform, "labels": torch.tensor([0, 1])})
    assert waveform.grad.isfinite().all()
    assert all(gradient.isfinite().all() for gradient in found.values())


def test_gradients_of_the_samples_are_finite_and_none_reaches_the_padding(model, batch):
    waveform = batch["input_values"].requires_grad_()
    gradients(model, batch)
    assert waveform.grad.isfinite().all()
    assert waveform.grad[batch["attention_mask"] == 0].count_nonzero() == 0
    assert all(row.count_nonzero() > 3000 for row in waveform.grad)


def test_a_few_steps_fit_four_clips():
    model = small_model(**NO_DROPOUT).train()
    batch = {"input_values": torch.stack([noise(4000, i) for i in range(4)]), "labels": torch.tensor([1, 5, 0, 5])}
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    first = gradients(model, batch)[0].item()
    for _ in range(20):
        optimizer.step()
        loss = gradients(model, batch)[0].item()
    assert loss < 0.2 * first
