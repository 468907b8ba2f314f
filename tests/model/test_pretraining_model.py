"""Masked audio modelling: its masks, what hidden frames hide, its loss against a plain one, batches, saving."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoModel, AutoModelForAudioClassification, AutoModelForPreTraining

from golden import golden_model
from hear_hf import HEARConfig, HEARForAudioClassification, HEARForPreTraining, HEARModel
from hear_hf.acoustic_model_hear import FrameMasks
from hear_hf.masking_hear import share_mask
from helpers import SMALL, noise, ragged_batch
from original_layout import PRETRAINING

CODES = 64
LENGTHS = (201, 1600, 5000, 9600, 16_001, 40_000)  # windows hold 9600 samples


def small_pretraining(**changes) -> HEARForPreTraining:
    return golden_model(PRETRAINING.main, **SMALL | {"codebook_size": CODES} | changes)


@pytest.fixture
def pretraining():
    return small_pretraining()


def drawn_codes(*shape: int) -> torch.Tensor:
    return torch.randint(CODES, shape, generator=torch.Generator().manual_seed(3))


def masked_inputs(model, clips, **options):
    """A padded batch with labels, -100 in padding, and a mask that hides padding too."""
    waveform, mask = ragged_batch(clips, **options)
    with torch.no_grad():
        valid = model(waveform, mask).frame_mask
    hidden = torch.rand(valid.shape, generator=torch.Generator().manual_seed(4)) < 0.4
    labels = drawn_codes(*valid.shape).masked_fill(~valid, -100)
    inputs = {"input_values": waveform, "attention_mask": mask, "mask_time_indices": hidden, "labels": labels}
    return inputs, valid


def gradients(model, inputs) -> dict[str, torch.Tensor]:
    """The loss and the gradient of each parameter. Dropout is the same in each call."""
    model.zero_grad()
    torch.manual_seed(5)
    loss = model.train()(**inputs).loss
    loss.backward()
    return {"loss": loss.detach()} | {name: parameter.grad.clone() for name, parameter in model.named_parameters()}


def runs(row: torch.Tensor) -> list[int]:
    """Lengths of the runs of True."""
    _, lengths = torch.unique_consecutive(row, return_counts=True)
    return lengths[int(not row[0]) :: 2].tolist()


@st.composite
def valid_rows(draw):
    """Rows of 60 frames whose clips lie left, right or with padding on both sides."""
    lengths = draw(st.lists(st.integers(0, 60), min_size=1, max_size=4))
    starts = torch.tensor([draw(st.integers(0, 60 - length)) for length in lengths])
    position = torch.arange(60)
    return (position >= starts[:, None]) & (position < (starts + torch.tensor(lengths))[:, None])


@given(valid_rows(), st.floats(0, 1), st.integers(1, 70), st.integers(0, 9))
@settings(max_examples=200, deadline=None, derandomize=True)
def test_exactly_the_share_of_each_row_s_valid_frames_is_hidden_in_spans(valid, mask_prob, mask_length, seed):
    before = valid.clone()
    hidden = share_mask(valid, mask_prob, mask_length, torch.Generator().manual_seed(seed))
    assert torch.equal(valid, before) and hidden.dtype == torch.bool and hidden.shape == valid.shape
    assert not (hidden & ~valid).any()
    for row, length in zip(hidden, valid.sum(1).tolist(), strict=True):
        assert abs(row.sum() - mask_prob * length) <= 0.5 + 1e-4 or row.sum() == 1
        # A span that is cut, by an end of the clip or as the last that is needed, may be shorter: three at most.
        assert sum(run < mask_length for run in runs(row)) <= 3


def test_a_row_too_short_for_its_share_hides_one_frame_and_an_empty_row_none():
    valid = torch.arange(9) < torch.tensor([0, 1, 2, 4, 9])[:, None]
    assert share_mask(valid, 0.1).sum(1).tolist() == [0, 1, 1, 1, 1]
    assert share_mask(valid, 0.0).sum() == 0 and torch.equal(share_mask(valid, 1.0), valid)


def test_the_published_share_is_exact_and_every_frame_is_as_likely_to_be_hidden():
    hidden = share_mask(torch.ones(5000, 50, dtype=torch.bool), 0.4)
    assert (hidden.sum(1) == 20).all()
    assert (hidden.float().mean(0) - 0.4).abs().max() < 0.03
    pairs = (hidden[:, :-1] & hidden[:, 1:]).float().mean()
    assert abs(pairs - 0.4 * 19 / 49) < 0.01  # single frames do not attract each other


@pytest.mark.parametrize("mask_length", [1, 2, 5, 10])
def test_hidden_frames_come_in_runs_of_the_spans_length_or_more(mask_length):
    hidden = share_mask(torch.ones(20, 3000, dtype=torch.bool), 0.4, mask_length)
    lengths = [run for row in hidden for run in runs(row)]
    mean = sum(lengths) / len(lengths)
    # Spans touch where two neighbours are drawn, so a run has 1 / (1 - 0.4) spans on average.
    assert mean == pytest.approx(mask_length / 0.6, rel=0.08)


def test_spans_start_at_any_frame():
    hidden = share_mask(torch.ones(4000, 300, dtype=torch.bool), 0.1, mask_length=5)
    starts = (hidden[:, 1:] & ~hidden[:, :-1]).sum(0).unflatten(0, (-1, 13)).float().mean(1)
    assert starts.min() > 0.7 * starts.mean()
    by_phase = torch.stack([(hidden[:, 1:] & ~hidden[:, :-1])[:, phase::5].sum() for phase in range(5)]).float()
    assert by_phase.min() > 0.9 * by_phase.mean()


def test_a_seeded_generator_draws_the_same_mask_again_and_leaves_the_global_one_alone():
    valid, state = torch.ones(3, 200, dtype=torch.bool), torch.get_rng_state()
    first, again, other = (share_mask(valid, 0.4, 5, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2))
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert torch.equal(torch.get_rng_state(), state)
    assert not torch.equal(share_mask(valid, 0.4), share_mask(valid, 0.4))


@pytest.mark.parametrize("mask_prob, mask_length", [(-0.1, 1), (1.1, 1), (0.4, 0)])
def test_a_share_or_a_length_out_of_range_is_refused(mask_prob, mask_length):
    with pytest.raises(ValueError, match=f"found: mask_prob={mask_prob} and mask_length={mask_length}"):
        share_mask(torch.ones(1, 9, dtype=torch.bool), mask_prob, mask_length)


@pytest.mark.parametrize("num_frames", [25, 120], ids=["one window", "several windows"])
@torch.no_grad()
def test_what_hidden_frames_hold_does_not_reach_the_output(pretraining, num_frames):
    acoustic_model = pretraining.hear.acoustic_model
    hidden = share_mask(torch.ones(2, num_frames, dtype=torch.bool), 0.4, 3)
    log_mel = torch.randn(2, 2 * num_frames, 128)
    other = torch.where(hidden.repeat_interleave(2, 1)[..., None], 9 * torch.randn_like(log_mel), log_mel)
    states, changed = (acoustic_model(x, FrameMasks(None, hidden)).last_hidden_state for x in (log_mel, other))
    assert torch.equal(states, changed)
    assert not torch.allclose(*(acoustic_model(x).last_hidden_state for x in (log_mel, other)), atol=0.1)


@torch.no_grad()
def test_hidden_frames_are_zero_behind_the_feature_encoder_and_the_others_untouched(pretraining):
    inputs, _ = masked_inputs(pretraining, [noise(9000)])
    hidden, plain = inputs["mask_time_indices"], {"input_values": inputs["input_values"], "output_hidden_states": True}
    masked = pretraining(**plain, mask_time_indices=hidden).hidden_states[0]
    assert masked[hidden].count_nonzero() == 0
    assert torch.equal(masked[~hidden], pretraining(**plain).hidden_states[0][~hidden])


@pytest.mark.parametrize("side", ["right", "left"])
@torch.no_grad()
def test_the_loss_is_the_cross_entropy_at_frames_that_are_hidden_and_valid_and_labelled(pretraining, side):
    inputs, valid = masked_inputs(pretraining, [noise(5000, 1), noise(33_000, 2), noise(12_000, 3)], side=side)
    inputs["labels"][1, ::5] = -100
    before = {name: tensor.clone() for name, tensor in inputs.items()}
    outputs = pretraining(**inputs)
    assert all(torch.equal(inputs[name], tensor) for name, tensor in before.items())
    scored = inputs["mask_time_indices"] & valid & (inputs["labels"] != -100)
    assert 10 < scored.sum() < (inputs["mask_time_indices"] & valid).sum()
    log_probs = outputs.logits.log_softmax(-1)[scored]
    right = inputs["labels"][scored]
    expected = -log_probs[torch.arange(len(right)), right].mean()
    torch.testing.assert_close(outputs.loss, expected, rtol=0, atol=1e-5)
    assert outputs.num_masked_frames == len(right)


@torch.no_grad()
def test_the_accuracy_is_that_at_the_scored_frames(pretraining):
    inputs, valid = masked_inputs(pretraining, [noise(5000, 1), noise(33_000, 2)])
    best = pretraining(**inputs).logits.argmax(-1)
    wrong = torch.arange(best.shape[1]) % 3 == 0
    outputs = pretraining(**inputs | {"labels": torch.where(wrong, (best + 1) % CODES, best)})
    scored = inputs["mask_time_indices"] & valid
    torch.testing.assert_close(outputs.masked_accuracy, (~wrong.expand_as(scored)[scored]).float().mean())


@torch.no_grad()
def test_labels_in_padding_and_at_seen_frames_do_not_count(pretraining):
    inputs, valid = masked_inputs(pretraining, [noise(5000, 1), noise(33_000, 2)])
    scored = inputs["mask_time_indices"] & valid
    others = torch.where(scored, inputs["labels"], drawn_codes(*scored.shape).flip(1))
    assert torch.equal(pretraining(**inputs | {"labels": others}).loss, pretraining(**inputs).loss)


def test_a_batch_without_a_hidden_frame_has_no_loss_and_finite_gradients(pretraining):
    inputs, _ = masked_inputs(pretraining, [noise(5000)])
    inputs["mask_time_indices"] = torch.zeros_like(inputs["mask_time_indices"])
    found = gradients(pretraining, inputs)
    assert all(tensor.count_nonzero() == 0 for tensor in found.values())


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("fill", ["noise", float("nan")])
@torch.no_grad()
def test_a_clip_has_the_same_logits_alone_and_in_any_batch(pretraining, side, fill):
    clips = [noise(length, length) for length in LENGTHS]
    inputs, valid = masked_inputs(pretraining, clips, side=side, fill=fill)
    batch = pretraining(**inputs)
    for row, clip in enumerate(clips):
        num_frames = int(valid[row].sum())
        hidden = inputs["mask_time_indices"][row : row + 1, :num_frames]
        alone = pretraining(clip[None], mask_time_indices=hidden)
        assert alone.logits.shape == (1, num_frames, CODES)
        torch.testing.assert_close(batch.logits[row, :num_frames], alone.logits[0], rtol=0, atol=1e-5)


@torch.no_grad()
def test_a_batch_s_loss_is_the_mean_of_its_clips_by_their_scored_frames(pretraining):
    clips = [noise(5000, 1), noise(33_000, 2)]
    inputs, valid = masked_inputs(pretraining, clips)
    alone = []
    for row, (clip, num_frames) in enumerate(zip(clips, valid.sum(1).tolist(), strict=True)):
        frames = {name: inputs[name][row : row + 1, :num_frames] for name in ("mask_time_indices", "labels")}
        alone.append(pretraining(clip[None], **frames))
    counts = torch.stack([outputs.num_masked_frames for outputs in alone])
    losses = torch.stack([outputs.loss for outputs in alone])
    torch.testing.assert_close(pretraining(**inputs).loss, (losses * counts).sum() / counts.sum(), rtol=0, atol=1e-5)
    assert abs(losses[0] - losses[1]) > 1e-3


@pytest.mark.parametrize("num_samples", [8000, 40_000], ids=["one window", "several windows"])
def test_every_parameter_learns(pretraining, num_samples):
    inputs, _ = masked_inputs(pretraining, [noise(num_samples), noise(num_samples // 2)])
    found = gradients(pretraining, inputs)
    assert all(tensor.isfinite().all() and tensor.count_nonzero() > 0 for tensor in found.values())


@pytest.mark.filterwarnings("ignore:`gradient_checkpointing_enable` is deprecated:FutureWarning")
@pytest.mark.parametrize("num_samples", [8000, 40_000], ids=["one window", "several windows"])
def test_gradient_checkpointing_changes_neither_loss_nor_gradients(pretraining, num_samples):
    inputs, _ = masked_inputs(pretraining, [noise(num_samples), noise(num_samples // 2)])
    expected = gradients(pretraining, inputs)
    pretraining.gradient_checkpointing_enable({"use_reentrant": False})
    torch.testing.assert_close(gradients(pretraining, inputs), expected)


@pytest.mark.parametrize("training", [True, False])
def test_bfloat16_autocast_runs_and_keeps_the_loss_in_float32(pretraining, training):
    inputs, _ = masked_inputs(pretraining, [noise(5000), noise(33_000)])
    expected = pretraining(**inputs).loss
    with torch.autocast("cpu", dtype=torch.bfloat16):
        outputs = pretraining.train(training)(**inputs)
    outputs.loss.backward()
    assert outputs.logits.dtype == torch.bfloat16 and outputs.loss.dtype == torch.float32
    assert abs(outputs.loss - expected) < 0.3
    assert all(parameter.grad.isfinite().all() for parameter in pretraining.parameters())


def test_freezing_the_feature_encoder_stops_its_training_alone(pretraining):
    pretraining.freeze_feature_encoder()
    frozen = {name for name, parameter in pretraining.named_parameters() if not parameter.requires_grad}
    prefix = "hear.acoustic_model.feature_encoder.conv"
    assert frozen == {f"{prefix}.weight", f"{prefix}.bias"}


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"mask_time_indices": None}, "`labels` must come with `mask_time_indices`"),
        ({"mask_time_indices": torch.ones(1, 8000)}, r"`mask_time_indices` .* \(1, 25\), .*found: \(1, 8000\)"),
        ({"mask_time_indices": torch.ones(25)}, r"`mask_time_indices` .* \(1, 25\), .*found: \(25,\)"),
        ({"labels": torch.zeros(1, 24).long()}, r"`labels` .* \(1, 25\), .*found: \(1, 24\)"),
        ({"attention_mask": torch.ones(1, 25)}, "marks samples, not frames"),
        ({"input_values": torch.zeros(1, 200), "attention_mask": None}, "at least 201 samples"),
    ],
)
def test_inputs_that_do_not_fit_are_refused(pretraining, changes, message):
    inputs = {"input_values": noise(8000)[None], "attention_mask": torch.ones(1, 8000)}
    inputs |= {"mask_time_indices": torch.ones(1, 25).bool(), "labels": torch.zeros(1, 25).long()}
    with pytest.raises(ValueError, match=message):
        pretraining(**inputs | changes)


def assert_same_weights(model, other):
    weights, others = model.state_dict(), other.state_dict()
    assert weights.keys() == others.keys() and all(torch.equal(weights[name], others[name]) for name in weights)


@pytest.mark.parametrize("auto", [HEARForPreTraining, AutoModelForPreTraining])
@torch.no_grad()
def test_a_model_survives_a_round_trip(pretraining, tmp_path, auto):
    pretraining.save_pretrained(tmp_path)
    loaded, info = auto.from_pretrained(tmp_path, output_loading_info=True)
    assert type(loaded) is HEARForPreTraining and not loaded.training
    assert not any(info[name] for name in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert_same_weights(loaded, pretraining)
    assert torch.equal(loaded(noise(20_000)[None]).logits, pretraining(noise(20_000)[None]).logits)


@pytest.mark.parametrize("auto", [AutoModel, AutoModelForAudioClassification])
@torch.no_grad()
def test_its_acoustic_model_goes_on_as_a_classifier_s_with_the_rest_drawn_anew(pretraining, tmp_path, auto):
    pretraining.save_pretrained(tmp_path)
    loaded, info = auto.from_pretrained(tmp_path, num_labels=3, output_loading_info=True)
    assert type(loaded) is {AutoModel: HEARModel}.get(auto, HEARForAudioClassification)
    assert_same_weights(loaded.base_model.acoustic_model, pretraining.hear.acoustic_model)
    assert not info["mismatched_keys"] and not [key for key in info["missing_keys"] if "acoustic_model." in key]
    outputs = loaded.base_model(noise(20_000)[None])
    expected = pretraining(noise(20_000)[None]).acoustic_hidden_states
    assert torch.equal(outputs.acoustic_hidden_states, expected) and outputs.pooler_output.isfinite().all()


def test_a_classifier_s_checkpoint_loads_for_more_pretraining(tmp_path):
    classifier = HEARForAudioClassification(HEARConfig(**SMALL))
    classifier.save_pretrained(tmp_path)
    loaded, info = HEARForPreTraining.from_pretrained(tmp_path, codebook_size=CODES, output_loading_info=True)
    assert_same_weights(loaded.hear.acoustic_model, classifier.hear.acoustic_model)
    assert set(info["missing_keys"]) == {"code_head.weight", "code_head.bias"}
    assert loaded.code_head.out_features == CODES


def test_the_model_builds_from_a_config_and_holds_no_task_model():
    model = AutoModelForPreTraining.from_config(HEARConfig(**SMALL))
    assert type(model) is HEARForPreTraining
    assert {name.split(".")[0] for name in model.state_dict()} == {"hear", "code_head"}
    assert all(name.startswith("hear.acoustic_model.") for name in model.state_dict() if name.startswith("hear."))
