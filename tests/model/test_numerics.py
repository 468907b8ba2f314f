"""Reduced and raised precision: the front end stays exact, and losses stay finite."""

import pytest
import torch
from transformers.audio_utils import mel_filter_bank

from hear_hf import HEARConfig
from hear_hf.graphs_hear import fourier_transform
from hear_hf.spectrogram_hear import HEARClips, HEARSpectrogram, htk_mel_filters, power_spectrogram
from helpers import noise, ragged_batch, samples_of, small_model

DTYPES = [torch.float32, torch.bfloat16, torch.float16]
CASTS = [
    lambda model: model.half(),
    lambda model: model.bfloat16(),
    lambda model: model.double(),
    lambda model: model.to(torch.float16),
    lambda model: model.half().to("cpu").bfloat16().float(),
]
CLIPS = [noise(samples_of(170)), noise(samples_of(3)), torch.zeros(samples_of(40)), noise(samples_of(20)) * 1e-5]


@pytest.mark.parametrize("cast", CASTS, ids=["half", "bfloat16", "double", "to float16", "half and back"])
def test_the_front_end_s_tables_stay_exact(cast):
    model = cast(small_model(sampling_rate=32_000, n_fft=2048))
    fresh = HEARSpectrogram(model.config)
    tables = dict(model.hear.spectrogram.named_buffers())
    assert tables.keys() == {"window", "mel_window", "mel_filters", "resampling_kernel"}
    assert all(torch.equal(table, fresh.get_buffer(name)) for name, table in tables.items())


@pytest.mark.parametrize("cast", CASTS, ids=["half", "bfloat16", "double", "to float16", "half and back"])
def test_the_front_end_computes_in_float32(model, cast):
    waveform = noise(9000)[None]
    log_mel, log_power, _ = model.hear.spectrogram(waveform)
    cast_log_mel, cast_log_power, _ = cast(model).hear.spectrogram(waveform)
    assert torch.equal(cast_log_mel, log_mel) and torch.equal(cast_log_power.frames(0, 10), log_power.frames(0, 10))


def test_the_front_end_computes_in_float32_under_autocast(model):
    waveform = noise(9000)[None]
    log_mel, _, _ = model.hear.spectrogram(waveform)
    with torch.autocast("cpu", torch.bfloat16):
        autocast_log_mel, _, _ = model.hear.spectrogram(waveform)
    assert torch.equal(autocast_log_mel, log_mel)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_a_training_batch_is_finite_in_every_dtype(model, dtype):
    waveform, mask = ragged_batch(CLIPS)
    model.train().to(dtype)
    loss = model(waveform, mask, labels=torch.tensor([0, 1, 2, 3])).loss
    loss.backward()
    assert loss.isfinite()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())


@pytest.mark.parametrize("problem_type", ["single_label_classification", "multi_label_classification", "regression"])
def test_a_training_batch_is_finite_under_autocast(problem_type):
    model = small_model(problem_type=problem_type).train()
    labels = torch.tensor([0, 1, 2, 3]) if problem_type.startswith("single") else torch.rand(4, 7)
    with torch.autocast("cpu", torch.bfloat16):
        loss = model(*ragged_batch(CLIPS), labels=labels).loss
    loss.backward()
    assert loss.isfinite() and loss.dtype == torch.float32
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())


@pytest.mark.parametrize("dtype", [*DTYPES, torch.float64], ids=str)
@torch.no_grad()
def test_logits_in_every_dtype_are_near_those_in_float32(model, dtype):
    batch = ragged_batch(CLIPS)
    expected = model(*batch).logits
    for output_attentions in (False, True):  # the task model computes them in two ways
        logits = model.to(dtype)(*batch, output_attentions=output_attentions).logits
        assert logits.dtype == dtype
        torch.testing.assert_close(logits.float(), expected, rtol=0, atol=0.2 if dtype.itemsize == 2 else 1e-4)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64], ids=str)
def test_the_waveform_may_have_the_model_s_dtype(model, dtype):
    assert model.to(dtype)(noise(9000)[None].to(dtype)).logits.isfinite().all()


def test_ramps_of_windows_keep_their_precision_in_half(model):
    log_mel = torch.randn(1, 2 * 54, 128)
    expected = model.hear.acoustic_model(log_mel).last_hidden_state
    hidden_states = model.bfloat16().hear.acoustic_model(log_mel.bfloat16()).last_hidden_state
    assert hidden_states.dtype == torch.bfloat16
    assert (hidden_states.float() - expected).abs()[0, 24:30].max() < 0.1


@pytest.mark.parametrize("scale", [1e-4, 1.0, 3e4])
def test_loud_and_quiet_recordings_are_finite(model, scale):
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        assert model.to(dtype)(scale * noise(9000)[None]).logits.isfinite().all()


def test_a_silent_clip_has_a_flat_spectrum(model):
    log_mel, log_power, _ = model.hear.spectrogram(torch.zeros(1, 9000))
    assert log_mel.count_nonzero() == 0 and log_power.frames(0, 50).count_nonzero() == 0


def test_a_constant_clip_is_silent(model):
    log_mel, log_power, _ = model.hear.spectrogram(torch.full((1, 9001), 0.3))
    assert log_mel.abs().max() < 0.1 and log_power.frames(0, 50).abs().max() < 0.1


def test_log_mel_and_log_power_are_normalised_over_a_clip_s_own_frames(model):
    log_mel, log_power, mask = model.hear.spectrogram(*ragged_batch([noise(9000), noise(samples_of(40))]))
    for frames in (log_mel[0, :57], log_mel[1, :80], log_power.frames(0, 57)[0], log_power.frames(0, 80)[1]):
        torch.testing.assert_close(frames.mean(), torch.tensor(0.0), rtol=0, atol=1e-4)
        torch.testing.assert_close(frames.std(correction=0), torch.tensor(1.0), rtol=0, atol=1e-4)
    assert mask.sum(1).tolist() == [28, 40]


def test_mel_filters_are_those_of_transformers():
    expected = torch.tensor(mel_filter_bank(513, 128, 0, 8000, 16_000, norm=None, mel_scale="htk"))
    torch.testing.assert_close(htk_mel_filters(513, 128).double(), expected, rtol=0, atol=1e-4)


def tone(sampling_rate: int, *frequencies: int) -> torch.Tensor:
    seconds = torch.arange(sampling_rate, dtype=torch.float64) / sampling_rate
    return sum(1e-3 * torch.sin(2 * torch.pi * frequency * seconds) for frequency in frequencies).float()[None]


@pytest.mark.parametrize("sampling_rate", [32_000, 44_000, 48_000])
def test_resampling_keeps_a_tone_and_removes_what_16_khz_cannot_hold(sampling_rate):
    front_end = HEARSpectrogram(HEARConfig(sampling_rate=sampling_rate, n_fft=2048))
    expected, _, _ = HEARSpectrogram(HEARConfig())(tone(16_000, 1000))
    log_mel, _, _ = front_end(tone(sampling_rate, 1000, 11_000))
    aliased, _, _ = HEARSpectrogram(HEARConfig())(tone(16_000, 1000, 11_000))
    inner = slice(5, -5)  # the resampler sees silence beyond the clip's ends
    assert (log_mel - expected)[:, inner].abs().max() < 0.5 < (aliased - expected)[:, inner].abs().max()


def test_frames_at_32_khz_are_those_of_16_khz():
    front_end = HEARSpectrogram(HEARConfig(sampling_rate=32_000, n_fft=2048))
    log_mel, log_power, _ = front_end(noise(32_000)[None])
    assert log_mel.shape == (1, 101, 128) and log_power.frames(0, 101).shape == (1, 101, 1025)


def test_the_head_computes_in_float32_under_autocast(model):
    pooled = noise(4 * 3 * model.config.task_hidden_size).view(4, -1) + 3.0  # far from zero, as the real ones are
    logits = model.classifier(pooled)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(model.classifier(pooled), logits)


@pytest.mark.parametrize("win_length, hop_length", [(400, 160), (551, 220), (24, 30), (30, 30), (2, 1)])
def test_the_transform_of_exported_graphs_has_the_power_of_the_fast_one(win_length, hop_length):
    n_fft, window = 1024, torch.hann_window(win_length)
    clips = HEARClips.from_batch(torch.stack([noise(5000), noise(5000, seed=1)]), None)
    for start, stop in ((0, 10), (3, 9), (5, 6)):
        expected = power_spectrogram(clips, start, stop, n_fft, hop_length, window)
        real, imag = fourier_transform(clips, start, stop, n_fft, hop_length, window)
        torch.testing.assert_close(real.square() + imag.square(), expected, rtol=1e-4, atol=2e-6 * expected.max())
