"""The converter of speech_embedding against a plain model written from the paper and the file, and broken files."""

import dataclasses
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

import convert_speech_embedding
from convert_speech_embedding import convert, main
from helpers import noise
from teacher_models import SpeechEmbeddingConfig, SpeechEmbeddingFeatureExtractor, SpeechEmbeddingModel
from tflite_file import Operator

ROOT = Path(__file__).parents[2]
# Convolutions (time x frequency) and poolings (`P`) in the order of the published file, by stages.
FIRST, SEPARABLE = "3x3 1x3 3x1", "1x3 3x1 1x3 3x1"
LAYERS = f"{FIRST} P2x2 | {SEPARABLE} P1x2 | {SEPARABLE} P2x2 | {SEPARABLE} P1x2 | {SEPARABLE} P2x2 | 3x1"
WIDTHS = [5, 6, 7, 9, 10, 8]
PLAIN = {"StrideH": 1, "StrideW": 1, "DilationHFactor": 1, "DilationWFactor": 1, "FusedActivationFunction": 0}


def size(layer):
    return tuple(map(int, layer.lstrip("P").split("x")))


def draw(widths=WIDTHS):
    """Random kernels (out, time, frequency, in) and biases at which each layer matters, by layer."""
    rng, drawn, inputs = np.random.default_rng(0), [], 1
    for stage, width in zip(LAYERS.split(" | "), widths, strict=True):
        for layer in stage.split():
            shape = (width, *size(layer), inputs)
            if not layer.startswith("P"):
                kernel = rng.standard_normal(shape) * (2 / np.prod(shape[1:])) ** 0.5
                drawn.append((kernel.astype(np.float32), rng.normal(0, 0.2, width).astype(np.float32)))
                inputs = width
    return drawn


def chain(weights=None, widths=WIDTHS):
    """The operators of the published file."""
    weights = iter(weights or draw(widths))
    operators = [Operator("PAD", (np.array([[0, 0], [0, 0], [1, 1], [0, 0]], dtype=np.int32),))]
    for layer in LAYERS.replace("|", " ").split():
        time, frequency = size(layer)
        if layer.startswith("P"):
            window = {"FilterHeight": time, "FilterWidth": frequency, "StrideH": time, "StrideW": frequency}
            operators.append(Operator("MAX_POOL_2D", (), window | {"FusedActivationFunction": 0}))
            continue
        padding = {"Padding": 0 if (time, frequency) == (1, 3) else 1}
        operators.append(Operator("CONV_2D", next(weights), PLAIN | padding))
        operators.append(Operator("LEAKY_RELU", (), {"Alpha": float(np.float32(0.2))}))
        operators.append(Operator("MAXIMUM", (np.array(-0.4, dtype=np.float32),)))
    return operators[:-2]  # no activation behind the last


def published(weights, log_mel):
    """Window by window in float64: (T, 32) -> (vectors, width)"""
    weights, x = iter(weights), log_mel.double().unfold(0, 76, 8).transpose(1, 2)[:, None]
    layers = LAYERS.replace("|", " ").split()
    for position, layer in enumerate(layers):
        if layer.startswith("P"):
            x = F.max_pool2d(x, size(layer))
            continue
        kernel, bias = (torch.from_numpy(value).double() for value in next(weights))
        wide = kernel.shape[2] == 3
        x = F.conv2d(x, kernel.permute(0, 3, 1, 2), bias, padding=(0, int(wide)))
        x = torch.maximum(F.leaky_relu(x, 0.2), torch.tensor(-0.4)) if position + 1 < len(layers) else x
    return x.flatten(1).float()


def slaney(hertz):
    hertz = np.asarray(hertz, dtype=np.float64)
    return np.where(hertz < 1000, 3 * hertz / 200, 15 + 27 * np.log(np.maximum(hertz, 1) / 1000) / np.log(6.4))


def log_mel_spectrogram(waveform):
    """The published front end in float64: (N,) -> (T, 32)"""
    frames = (32768 * waveform.double()).unfold(0, 512, 160).numpy()
    window = np.zeros(512)
    window[56:456] = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(400) / 400)
    power = np.abs(np.fft.rfft(frames * window)) ** 2
    grid = np.linspace(0, 8000, 800_001)
    edges = np.interp(np.linspace(slaney(60), slaney(3800), 34), slaney(grid), grid)
    bins = np.arange(257) * 31.25
    rising = (bins - edges[:-2, None]) / np.diff(edges)[:-1, None]
    falling = (edges[2:, None] - bins) / np.diff(edges)[1:, None]
    filters = np.maximum(np.minimum(rising, falling), 0) * (2 / (edges[2:] - edges[:-2]))[:, None]
    decibels = 10 * np.log10(np.maximum(power @ filters.T, 1e-10))
    return torch.from_numpy(np.maximum(decibels, decibels.max() - 80) / 10 + 2).float()


@pytest.fixture
def given(monkeypatch, tmp_path):
    """Stands in for the reading of a file: gives a path that reads as these operators."""

    def give(operators):
        path = tmp_path / "model.tflite"
        path.write_bytes(b"as read")
        monkeypatch.setattr(convert_speech_embedding, "read_operators", lambda path: operators)
        return path

    return give


@pytest.fixture
def out(tmp_path):
    return tmp_path / "out"


def load(folder):
    return SpeechEmbeddingModel.from_pretrained(folder).eval()


@torch.no_grad()
@pytest.mark.parametrize("num_samples", [12_512, 13_791, 32_000])
def test_a_whole_clip_gives_the_published_vectors_of_its_windows(given, out, num_samples):
    weights, clip = draw(), noise(num_samples)
    report = convert(given(chain(weights)), out)
    assert report.sizes == {"conv_dim": WIDTHS[:5], "hidden_size": WIDTHS[5]}
    assert report.num_parameters == sum(value.size for pair in weights for value in pair)
    expected = published(weights, log_mel_spectrogram(clip))
    assert expected.shape[0] == ((num_samples - 512) // 160 + 1 - 76) // 8 + 1 and expected.std(1).min() > 0.05
    outputs = load(out)(clip[None])
    torch.testing.assert_close(outputs.last_hidden_state[0], expected, rtol=0, atol=1e-4)
    torch.testing.assert_close(outputs.pooler_output[0], expected.mean(0), rtol=0, atol=1e-4)


def test_the_spectrogram_is_the_published_one_down_to_80_db_below_the_maximum():
    clip = noise(16_000)
    clip[4_000:12_000] = 0
    found, _ = SpeechEmbeddingModel(SpeechEmbeddingConfig()).spectrogram(clip[None])
    expected = log_mel_spectrogram(clip)
    assert expected.max() - expected.min() == 8
    torch.testing.assert_close(found[0], expected, rtol=0, atol=1e-3)


@torch.no_grad()
def test_a_clip_shorter_than_a_window_is_followed_by_silence(given, out):
    convert(given(chain()), out)
    clip = noise(5_000)
    followed = F.pad(clip, (0, 12_512 - 5_000))
    outputs = [load(out)(waveform[None]).last_hidden_state for waveform in (clip, followed)]
    assert outputs[0].shape == (1, 1, WIDTHS[5])
    torch.testing.assert_close(*outputs, rtol=0, atol=1e-6)


@torch.no_grad()
def test_the_published_file_gives_the_golden_outputs(teacher_file, golden_teacher, out):
    """To 1e-4 of the outputs' range of 50."""
    pytest.importorskip("tflite", reason='reading .tflite files needs the extra: pip install "hear_hf[conversion]"')
    report = convert(teacher_file("speech_embedding.tflite"), out)
    assert report.num_parameters == 328_224
    model, clips = load(out), golden_teacher("speech_embedding")
    assert len(clips) >= 4
    for clip in clips.values():
        log_mel, _ = model.spectrogram(clip["waveform"][None])
        torch.testing.assert_close(log_mel[0], clip["log_mel"], rtol=0, atol=1e-3)
        vectors = model(clip["waveform"][None]).last_hidden_state[0]
        torch.testing.assert_close(vectors, clip["embedding"], rtol=0, atol=1e-4 * 50)


def refused(saved_file, out):
    """Converts in vain, leaves nothing behind, and gives the message."""
    before = sorted(saved_file.parent.iterdir())
    with pytest.raises(ValueError) as error:
        convert(saved_file, out)
    assert sorted(saved_file.parent.iterdir()) == before
    return str(error.value)


def changed(position, **changes):
    operators = chain()
    operators[position] = dataclasses.replace(operators[position], **changes)
    return operators


def with_options(position, **options):
    return changed(position, options=chain()[position].options | options)


def with_kernel(position, kernel):
    return changed(position, constants=(kernel.astype(np.float32), chain()[position].constants[1]))


@pytest.mark.parametrize(
    "operators, words",
    [
        (chain()[:-1], "of 64 operators, found: 63"),
        ([*chain(), Operator("MAXIMUM", (np.array(0.0, dtype=np.float32),))], "of 64 operators, found: 65"),
        (chain()[1:], "operator 0 is `PAD [[0, 0], [0, 0], [1, 1], [0, 0]]`, found: `CONV_2D 3x3 VALID`"),
        (with_options(2, Alpha=0.1), "operator 2 is `LEAKY_RELU 0.2`, found: `LEAKY_RELU 0.1`"),
        (with_options(4, Padding=1), "is `CONV_2D 1x3 SAME`, found: `CONV_2D 1x3 VALID`"),
        (with_options(4, StrideH=2), "found: `CONV_2D 1x3 SAME StrideH=2`"),
        (with_options(10, StrideW=1), "operator 10 is `MAX_POOL_2D 2x2`, found: `MAX_POOL_2D 2x2 StrideW=1`"),
        (changed(3, constants=(np.array(-0.1, dtype=np.float32),)), "is `MAXIMUM -0.4`, found: `MAXIMUM -0.1`"),
        (changed(3, constants=()), "is `MAXIMUM -0.4`, found: `MAXIMUM`"),
        (with_kernel(4, np.zeros((5, 3, 3, 5))), "found: `CONV_2D 3x3 SAME`"),
        (with_kernel(4, np.zeros((5, 15))), "found: `CONV_2D"),
        (with_kernel(4, np.zeros((5, 1, 3, 4))), "must have shape (5, 5, 1, 3), found: (5, 4, 1, 3). Read: conv_dim="),
        (with_kernel(4, np.full((5, 1, 3, 5), np.nan)), "must be finite"),
        ([], "of 64 operators, found: 0"),
    ],
)
def test_another_model_is_refused_at_the_first_operator_that_differs(given, out, operators, words):
    assert words in refused(given(operators), out)


def test_a_folder_that_computes_something_else_does_not_replace_the_old_one(given, out, monkeypatch):
    model_file = given(chain())
    convert(model_file, out)
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    original = convert_speech_embedding.to_state_dict
    monkeypatch.setattr(
        convert_speech_embedding,
        "to_state_dict",
        lambda operators: original(operators) | {"stages.1.convolutions.2.bias": torch.zeros(WIDTHS[1])},
    )
    with pytest.raises(ValueError, match="must compute what the checkpoint does"):
        convert(model_file, out, force=True)
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before


def test_a_folder_is_replaced_only_by_force_and_brings_its_code(given, out):
    out.mkdir()
    (out / "old").touch()
    assert "must be new or empty" in refused(given(chain()), out)
    convert(given(chain()), out, force=True)
    assert sorted(path.name for path in out.iterdir()) == [
        "README.md", "config.json", "configuration_speech_embedding.py", "feature_extraction_speech_embedding.py",
        "feature_extraction_waveforms.py", "model.safetensors", "modeling_speech_embedding.py",
        "modeling_waveforms.py", "preprocessor_config.json",
    ]  # fmt: skip


def test_the_model_card_says_what_it_is_where_it_comes_from_and_how_to_use_it(given, out):
    report = convert(given(chain()), out)
    card = (out / "README.md").read_text()
    for text in (
        "license: apache-2.0",
        report.sha256,
        "`model.tflite`",
        "(1, num_frames, 8)",
        "one per 80 ms",
        "16000",
    ):
        assert text in card


def test_the_feature_extractor_knows_the_models_rate(given, out):
    convert(given(chain()), out)
    feature_extractor = SpeechEmbeddingFeatureExtractor.from_pretrained(out)
    assert feature_extractor.sampling_rate == SpeechEmbeddingConfig.sampling_rate == 16_000
    assert feature_extractor.min_num_samples == SpeechEmbeddingConfig.min_num_samples


@pytest.fixture
def written(tmp_path):
    """Writes operators to a real file."""
    pytest.importorskip("tflite", reason='reading .tflite files needs the extra: pip install "hear_hf[conversion]"')
    from tflite_files import write_tflite

    return lambda operators, **options: write_tflite(tmp_path / "model.tflite", operators, **options)


@torch.no_grad()
def test_a_file_is_read_as_it_was_written(written, out):
    weights, clip = draw(), noise(16_000)
    convert(written(chain(weights)), out)
    expected = published(weights, log_mel_spectrogram(clip))
    torch.testing.assert_close(load(out)(clip[None]).last_hidden_state[0], expected, rtol=0, atol=1e-4)


def test_a_quantised_file_is_refused(written, out):
    types = {np.dtype(np.float32): 9, np.dtype(np.int32): 2}  # INT8
    assert "of INT8: a quantised model" in refused(written(chain(), types=types), out)


def test_a_file_of_several_outputs_is_refused(written, out):
    assert "1 graphs, with 1 inputs and 2 outputs" in refused(written(chain(), num_outputs=2), out)


def test_a_file_of_another_model_is_refused(written, out):
    assert "operator 0 is `PAD" in refused(written([Operator("SOFTMAX")]), out)


def test_a_broken_file_is_refused_wherever_it_breaks(written, out):
    path = written(chain())
    content = path.read_bytes()
    for length in (20, 200, len(content) // 2, len(content) - 200):
        path.write_bytes(content[:length])
        assert "must hold an intact chain of operators" in refused(path, out)


@pytest.mark.parametrize("content", [b"", b"RIFF____WAVEfmt ", b"PK\x03\x04\x14\0\0\0"])
def test_another_kind_of_file_is_refused(written, out, tmp_path, content):
    (tmp_path / "model.tflite").write_bytes(content)
    assert "must be a TensorFlow Lite file" in refused(tmp_path / "model.tflite", out)


def test_a_missing_file_is_refused(written, out, tmp_path):
    assert "must be a file, found: nothing" in refused(tmp_path / "model.tflite", out)
    assert "must be a file, found: a folder" in refused(tmp_path, out / "below")


def test_without_the_package_the_command_says_how_to_install_it(out, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("hear_hf.extras.find_spec", lambda name: None)
    with pytest.raises(SystemExit) as stop:
        main([str(tmp_path / "model.tflite"), str(out)])
    error = capsys.readouterr().err
    assert stop.value.code == 2 and 'pip install "hear_hf[conversion]"' in error and "Traceback" not in error


def test_the_command_says_what_it_found_and_what_comes_next(written, out):
    script = ROOT / "conversion" / "convert_speech_embedding.py"
    environment = {"PYTHONPATH": ":".join([str(ROOT), *sys.path]), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, script, written(chain()), out]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
    for words in ("Found:     speech_embedding", "conv_dim=[5, 6, 7, 9, 10]", "Reloaded:", "Next:"):
        assert words in done.stdout
    assert done.stderr == ""
