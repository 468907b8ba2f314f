"""HEARModel and HEARForAudioClassification: what they return, refuse and leave alone."""

import pytest
import torch

from hear_hf import HEARForAudioClassification, HEARModelOutput
from helpers import noise, ragged_batch, samples_of, small_model


def test_shapes_of_all_outputs(model):
    outputs = model.hear(*ragged_batch([noise(samples_of(20)), noise(samples_of(9))]))
    assert isinstance(outputs, HEARModelOutput)
    assert {name: tuple(tensor.shape) for name, tensor in outputs.items()} == {
        "last_hidden_state": (2, 20, 56),
        "pooler_output": (2, 168),
        "acoustic_hidden_states": (2, 20, 48),
        "frame_mask": (2, 20),
    }
    assert outputs.frame_mask.sum(1).tolist() == [20, 9]


@pytest.mark.parametrize("num_frames", [1, 30, 31, 78, 200], ids="{} frames".format)
def test_hidden_states_are_of_all_layers_and_change_nothing(model, num_frames):
    waveform = noise(max(201, samples_of(num_frames)))[None]
    outputs = model.hear(waveform, output_hidden_states=True)
    assert [tuple(state.shape) for state in outputs.hidden_states] == [(1, num_frames, 48)] * 3 + [(1, num_frames, 56)]
    assert torch.equal(outputs.hidden_states[-1], outputs.last_hidden_state)
    assert torch.equal(outputs.hidden_states[-2], outputs.acoustic_hidden_states)
    torch.testing.assert_close(outputs.last_hidden_state, model.hear(waveform).last_hidden_state)


def test_attentions_of_a_short_batch_are_probabilities_over_valid_frames(model):
    waveform, mask = ragged_batch([noise(samples_of(20)), noise(samples_of(9))])
    outputs = model.hear(waveform, mask, output_attentions=True)
    assert [tuple(layer.shape) for layer in outputs.attentions] == [(2, 4, 20, 20)] * 3
    for layer in outputs.attentions:
        torch.testing.assert_close(layer.sum(-1), torch.ones(2, 4, 20))
        assert layer.min() >= 0 and layer[1, :, :, 9:].max() == 0
    expected = model.hear(waveform, mask).last_hidden_state
    torch.testing.assert_close(outputs.last_hidden_state, expected, rtol=0, atol=1e-5)


def test_attentions_of_a_long_clip_come_window_by_window_and_segment_by_segment(model):
    outputs = model.hear(noise(samples_of(200))[None], output_attentions=True)
    *layers, task = outputs.attentions
    windows = [30] * 8 + [8]  # frames 0-29, 24-53, ..., 168-197 and 192-199
    assert [[window.shape[-1] for window in layer] for layer in layers] == [windows, windows]
    assert [segment.shape[-1] for segment in task] == [150, 50]
    for probs in (*layers[0], *layers[1], *task):
        assert probs.shape[:2] == (1, 4)
        torch.testing.assert_close(probs.sum(-1), torch.ones(probs.shape[:-1]))


def test_the_config_can_ask_for_hidden_states_and_attentions(model):
    model.config.output_hidden_states = model.config.output_attentions = True
    outputs = model(noise(4000)[None])
    assert len(outputs.hidden_states) == 4 and len(outputs.attentions) == 3
    outputs = model(noise(4000)[None], output_hidden_states=False, output_attentions=False)
    assert outputs.keys() == {"logits"}


def test_a_tuple_holds_what_the_output_does(model):
    waveform, labels = noise(4000)[None], torch.tensor([3])
    outputs = model(waveform, labels=labels, output_hidden_states=True)
    loss, logits, hidden_states = model(waveform, labels=labels, output_hidden_states=True, return_dict=False)
    assert torch.equal(loss, outputs.loss) and torch.equal(logits, outputs.logits) and len(hidden_states) == 4
    assert isinstance(model.hear(waveform, return_dict=False), tuple)


@pytest.mark.parametrize(
    ("waveform", "mask", "message"),
    [
        (torch.zeros(4000), None, r"must have shape \(batch_size, num_samples\), found: \(4000,\)"),
        (torch.zeros(1, 2, 4000), None, r"must have shape \(batch_size, num_samples\), found: \(1, 2, 4000\)"),
        (torch.zeros(1, 200), None, "at least 201 samples a clip, found: 200"),
        (torch.zeros(2, 4000), torch.ones(2, 12), r"\(2, 4000\), found: \(2, 12\). It marks samples, not frames"),
    ],
)
def test_a_wrong_shape_is_refused_and_named(model, waveform, mask, message):
    with pytest.raises(ValueError, match=message):
        model(waveform, mask)


def test_the_shortest_clip_makes_one_frame(model):
    for num_samples in (201, 319, 320, 479):
        assert model.hear(noise(num_samples)[None]).last_hidden_state.shape == (1, 1, 56)


@pytest.mark.parametrize("num_samples", [201, 479, 480, 9599, 9600, 9760, 100_000])
def test_the_number_of_frames_is_foretold(model, num_samples):
    num_frames = model.hear(noise(num_samples)[None]).last_hidden_state.shape[1]
    assert model._get_feat_extract_output_lengths(num_samples) == num_frames
    assert model._get_feat_extract_output_lengths(torch.tensor([num_samples])).tolist() == [num_frames]


def test_forward_changes_none_of_its_arguments(model):
    waveform, mask = ragged_batch([noise(30_000), noise(4000)])
    hidden = torch.rand(2, model._get_feat_extract_output_lengths(30_000)) < 0.3
    arguments = {"input_values": waveform, "attention_mask": mask, "mask_time_indices": hidden}
    copies = {name: tensor.clone() for name, tensor in arguments.items()}
    model.train().hear(**arguments, output_hidden_states=True)
    assert all(torch.equal(arguments[name], copy) for name, copy in copies.items())


def test_two_forwards_in_eval_mode_are_equal_to_the_bit(model):
    waveform, mask = ragged_batch([noise(30_000), noise(4000)])
    assert torch.equal(model(waveform, mask).logits, model(waveform, mask).logits)


def test_dropout_acts_in_training_only(model):
    waveform = noise(9000).repeat(2, 1)
    assert not torch.equal(*model.train().hear(waveform).last_hidden_state)
    assert torch.equal(*model.eval().hear(waveform).last_hidden_state)


def test_the_mean_of_a_clip_does_not_matter(model):
    clip = noise(9000)[None]
    assert (model(clip + clip.sign()).logits - model(clip).logits).abs().max() > 0.01
    torch.testing.assert_close(model(clip + 0.25).logits, model(clip).logits, rtol=0, atol=1e-3)


def test_hidden_frames_do_not_reach_the_acoustic_model(model):
    waveform, hidden = noise(samples_of(20))[None], torch.arange(20)[None] < 5
    (expected, *_) = model.hear(waveform, output_hidden_states=True).hidden_states
    (first, *_) = model.hear(waveform, mask_time_indices=hidden, output_hidden_states=True).hidden_states
    assert first[:, :5].count_nonzero() == 0 and expected[:, :5].count_nonzero() > 0
    assert torch.equal(first[:, 5:], expected[:, 5:])


def test_forward_refuses_stray_arguments_unless_they_are_none(model):
    waveform = noise(4000)[None]
    for forward in (model, model.hear):
        forward(waveform, input_ids=None)  # as PEFT calls it
        with pytest.raises(TypeError, match="unexpected arguments: atention_mask"):
            forward(waveform, atention_mask=torch.ones_like(waveform))
    assert HEARForAudioClassification.accepts_loss_kwargs is False  # Trainer must not give `num_items_in_batch`


def test_fused_attention_is_refused_with_the_reason():
    with pytest.raises(ValueError, match="must be eager or left out, found: sdpa.*probabilities"):
        small_model(attn_implementation="sdpa")


def test_window_overlap_may_be_nothing():
    model = small_model(window_overlap=0)
    together = model.hear(noise(samples_of(60))[None]).acoustic_hidden_states[0, 30:]
    assert together.shape == (30, 48) and together.isfinite().all()
