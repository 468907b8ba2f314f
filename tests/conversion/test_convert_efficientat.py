"""The converter of EfficientAT against a plain model written from the original, and broken checkpoints."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import convert_efficientat
from convert_efficientat import convert, main
from helpers import noise
from labels import read_labels
from teacher_models import EfficientATConfig, EfficientATFeatureExtractor, EfficientATForAudioClassification

ROOT = Path(__file__).parents[2]
# in, kernel, expanded, out, squeeze-excitation, hard-swish, stride: `_mobilenet_v3_conf` of the published code
SETTING = [
    (16, 3, 16, 16, False, False, 1),
    (16, 3, 64, 24, False, False, 2),
    (24, 3, 72, 24, False, False, 1),
    (24, 5, 72, 40, True, False, 2),
    (40, 5, 120, 40, True, False, 1),
    (40, 5, 120, 40, True, False, 1),
    (40, 3, 240, 80, False, True, 2),
    (80, 3, 200, 80, False, True, 1),
    (80, 3, 184, 80, False, True, 1),
    (80, 3, 184, 80, False, True, 1),
    (80, 3, 480, 112, True, True, 1),
    (112, 3, 672, 112, True, True, 1),
    (112, 5, 672, 160, True, True, 2),
    (160, 5, 960, 160, True, True, 1),
    (160, 5, 960, 160, True, True, 1),
]


def divisible(width):
    rounded = max(8, int(width + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * width else rounded


def conv_norm(inputs, outputs, kernel, stride, groups, activation):
    convolution = nn.Conv2d(inputs, outputs, kernel, stride, (kernel - 1) // 2, groups=groups, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs, eps=0.001), *([activation()] if activation else []))


class Excitation(nn.Module):
    def __init__(self, channels):
        super().__init__()
        squeezed = divisible(channels // 4)
        layers = {"fc1": nn.Linear(channels, squeezed), "fc2": nn.Linear(squeezed, channels)}
        self.conc_se_layers = nn.ModuleList([nn.ModuleDict(layers)])

    def forward(self, x):
        layers = self.conc_se_layers[0]
        return x * torch.sigmoid(layers["fc2"](F.relu(layers["fc1"](x.mean((2, 3))))))[:, :, None, None]


class Block(nn.Module):
    def __init__(self, width, inputs, kernel, expanded, outputs, excites, swishes, stride):
        super().__init__()
        inputs, expanded, outputs = (divisible(channels * width) for channels in (inputs, expanded, outputs))
        activation = nn.Hardswish if swishes else nn.ReLU
        self.adds = stride == 1 and inputs == outputs
        layers = [conv_norm(inputs, expanded, 1, 1, 1, activation)] if expanded != inputs else []
        layers.append(conv_norm(expanded, expanded, kernel, stride, expanded, activation))
        layers += [Excitation(expanded)] if excites else []
        self.block = nn.Sequential(*layers, conv_norm(expanded, outputs, 1, 1, 1, None))

    def forward(self, x):
        return self.block(x) + x if self.adds else self.block(x)


class MN(nn.Module):
    """Names its weights as the original does; the forward pass gives what the golden data hold."""

    def __init__(self, width=0.1, num_labels=5):
        super().__init__()
        last = divisible(160 * width)
        blocks = [Block(width, *setting) for setting in SETTING]
        first = conv_norm(1, divisible(16 * width), 3, 2, 1, nn.Hardswish)
        self.features = nn.Sequential(first, *blocks, conv_norm(last, 6 * last, 1, 1, 1, nn.Hardswish))
        self.classifier = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(6 * last, divisible(1280 * width)),
            nn.Hardswish(),
            nn.Dropout(),
            nn.Linear(divisible(1280 * width), num_labels),
        )
        # Statistics and scales at which every part of the model matters.
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                nn.init.normal_(module.running_mean, std=0.2)
                module.running_var.uniform_(0.2, 1.0)
                nn.init.normal_(module.weight, 1.0, 0.2)
                nn.init.normal_(module.bias, std=0.3)
        self.eval()

    @torch.no_grad()
    def forward(self, mel):  # (B, M, T)
        features = self.features(mel[:, None])
        time_embedding = features.mean(2).transpose(1, 2)
        return {"logits": self.classifier(features), "embedding": features.mean((2, 3)), "time": time_embedding}


def mel_spectrogram(waveform, num_mel_bins=128, hop=320):
    """`AugmentMelSTFT` in evaluation, in float64: (N,) -> (1, M, T)"""
    waveform = waveform.double()
    samples = waveform[1:] - 0.97 * waveform[:-1]
    padded = F.pad(samples[None], (512, 512), mode="reflect")[0]
    window = torch.zeros(1024, dtype=torch.float64)
    window[112:912] = torch.hann_window(800, periodic=False, dtype=torch.float64)
    power = torch.fft.rfft(padded.unfold(0, 1024, hop) * window).abs().square()
    scale = lambda hertz: 1127 * torch.log1p(torch.as_tensor(hertz, dtype=torch.float64) / 700)  # noqa: E731
    bins = scale(torch.arange(512) * 31.25)
    delta = scale(15_000) / (num_mel_bins + 1)
    filters = torch.zeros(num_mel_bins, 513, dtype=torch.float64)
    for m in range(num_mel_bins):
        left, center, right = m * delta, (m + 1) * delta, (m + 2) * delta
        filters[m, :512] = torch.minimum((bins - left) / (center - left), (right - bins) / (right - center)).clamp(0)
    return (((power @ filters.T + 1e-5).log().T + 4.5) / 5).float()[None]


@pytest.fixture
def saved(tmp_path):
    """Saves a model as the original does, with changes by key (`None`: without it), and gives the file."""

    def save(model, changes=None):
        state_dict = model.state_dict() | (changes or {})
        path = tmp_path / "mn.pt"
        torch.save({key: value for key, value in state_dict.items() if value is not None}, path)
        return path

    return save


@pytest.fixture
def out(tmp_path):
    return tmp_path / "out"


def load(folder):
    return EfficientATForAudioClassification.from_pretrained(folder).eval()


@torch.no_grad()
def assert_outputs(outputs, expected, tolerance):
    pairs = {"logits": outputs.logits, "embedding": outputs.pooler_output, "time": outputs.last_hidden_state}
    for name, found in pairs.items():
        torch.testing.assert_close(found, expected[name], rtol=0, atol=tolerance)


@pytest.mark.parametrize("width, num_parameters", [(0.1, None), (0.4, 983_599 - 522 * 513), (1.0, None)])
def test_a_waveform_gives_what_the_published_code_gives_at_any_width(saved, out, width, num_parameters):
    model, clip = MN(width), noise(20_000)
    report = convert(saved(model), out)
    assert report.sizes == {"width_mult": width, "num_labels": 5}
    assert (
        report.num_parameters
        == sum(x.numel() for x in model.parameters())
        == (num_parameters or report.num_parameters)
    )
    expected = model(mel_spectrogram(clip))
    assert expected["time"].shape == (1, 2, 6 * divisible(160 * width)) and expected["time"].std(2).min() > 0.05
    assert_outputs(load(out)(clip[None]), expected, tolerance=2e-4)


@pytest.mark.parametrize("num_samples", [514, 8_001, 32_000])
def test_the_spectrogram_is_the_published_one(num_samples):
    clip = noise(num_samples)
    found, lengths = EfficientATForAudioClassification(EfficientATConfig(width_mult=0.1)).efficientat.spectrogram(
        clip[None]
    )
    torch.testing.assert_close(found, mel_spectrogram(clip), rtol=0, atol=1e-4)
    assert lengths is None


@torch.no_grad()
def test_the_published_checkpoint_gives_the_golden_outputs(teacher_file, golden_teacher, out):
    """mn04 against the published code, to 1e-4."""
    convert(teacher_file("mn04_as_mAP_432.pt"), out)
    model, clips = load(out), golden_teacher("efficientat_mn04")
    assert len(clips) >= 4
    for clip in clips.values():
        log_mel, _ = model.efficientat.spectrogram(clip["waveform"][None])
        torch.testing.assert_close(log_mel[0], clip["mel"], rtol=0, atol=1e-5)
        expected = {"logits": clip["logits"], "embedding": clip["embedding"], "time": clip["time_embedding"]}
        outputs = model(clip["waveform"][None])
        assert_outputs(outputs, {name: value[None] for name, value in expected.items()}, tolerance=1e-4)


def test_other_spectrograms_are_options(saved, out):
    model, clip = MN(), noise(20_000)
    convert(saved(model), out, num_mel_bins=64, hop_length=480)
    expected = model(mel_spectrogram(clip, num_mel_bins=64, hop=480))
    assert_outputs(load(out)(clip[None]), expected, tolerance=2e-4)


def test_the_labels_are_named_by_audiosets_table(saved, out, tmp_path):
    rows = ["index,mid,display_name", '0,/m/09x0r,"Speech"', '1,/m/05zppz,"Male speech, man speaking"']
    (tmp_path / "labels.csv").write_text("\n".join(rows) + "\n")
    convert(saved(MN(num_labels=2)), out, id2label=read_labels(tmp_path / "labels.csv"))
    config = load(out).config
    assert config.id2label == {0: "Speech", 1: "Male speech, man speaking"}
    assert config.problem_type == "multi_label_classification"


@pytest.mark.parametrize(
    "table, words",
    [
        ("index,mid\n0,/m/09x0r\n", "columns `index` and `display_name`"),
        ("index,display_name\nzero,Speech\n", "columns `index` and `display_name`"),
        ("index,display_name\n0,Speech\n2,Dog\n", "must name labels 0 to 4, 5 in all, found 2: 0, 2"),
        ("index,display_name\n" + "".join(f"{i},Dog\n" for i in range(5)), "a name of its own"),
        ("", "must name labels 0 to 4"),
    ],
)
def test_a_table_that_does_not_name_the_labels_is_refused(saved, out, tmp_path, table, words):
    (tmp_path / "labels.csv").write_text(table)
    with pytest.raises(ValueError, match=words):
        convert(saved(MN()), out, id2label=read_labels(tmp_path / "labels.csv"))


def test_many_labels_too_many_are_told_in_one_line(saved, out):
    with pytest.raises(ValueError, match=r"found 600: 0, 1, .*9, \.\.\., 597, 598, 599\.$"):
        convert(saved(MN()), out, id2label={i: str(i) for i in range(600)})


def test_a_loss_per_label_trains_the_model(saved, out):
    convert(saved(MN()), out)
    model = load(out).train()
    model.freeze_base_model()
    labels = torch.tensor([[1.0, 0, 0, 1, 0], [0, 0, 1, 0, 0]])
    outputs = model(torch.stack([noise(9_000), noise(9_000, seed=1)]), labels=labels)
    torch.testing.assert_close(outputs.loss, F.binary_cross_entropy_with_logits(outputs.logits, labels))
    outputs.loss.backward()
    trained = {name.partition(".")[0] for name, parameter in model.named_parameters() if parameter.grad is not None}
    assert trained == {"classifier"}


def refused(saved_file, out, **options):
    """Converts in vain, leaves nothing behind, and gives the message."""
    before = sorted(saved_file.parent.iterdir())
    with pytest.raises(ValueError) as error:
        convert(saved_file, out, **options)
    assert sorted(saved_file.parent.iterdir()) == before
    return str(error.value)


KERNEL = "features.4.block.0.0.weight"


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"classifier.2.weight": None}, "with two linear layers for a head"),
        ({"features.0.0.weight": None}, "must be an EfficientAT"),
        ({"classifier.5.weight": torch.zeros(5, 128, 1, 1)}, "with two linear layers for a head"),
        ({KERNEL: None}, f"1 missing (`{KERNEL}`)"),
        ({"features.17.0.weight": torch.zeros(8)}, "1 unexpected (`features.17.0.weight`)"),
        ({KERNEL: torch.zeros(8, 9, 1, 1)}, "found: (8, 9, 1, 1)"),
        ({KERNEL: torch.zeros(8, 8, 5, 5)}, "found: (8, 8, 5, 5). Read: width_mult=0.1"),
        ({KERNEL: torch.zeros(8, 1, 5, 5).half()}, "must be torch.float32"),
        ({KERNEL: torch.full((8, 1, 5, 5), torch.nan)}, "must be finite"),
        ({"classifier.2.weight": torch.zeros(10**6, 48)}, "`width_mult` must be positive and at most"),
        ({"features.0.1.num_batches_tracked": None}, "1 missing (`features.0.1.num_batches_tracked`)"),
    ],
)
def test_other_and_broken_checkpoints_are_refused(saved, out, changes, words):
    assert words in refused(saved(MN(), changes), out)


def test_an_impossible_spectrogram_is_refused(saved, out):
    assert "`num_mel_bins` at most" in refused(saved(MN()), out, num_mel_bins=0)
    assert "must be positive and ascend" in refused(saved(MN()), out, hop_length=900)


class Hostile:
    def __reduce__(self):
        return os.mkdir, ("ran",)


def test_code_in_a_checkpoint_is_not_run(tmp_path, out, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"features.0.0.weight": Hostile()}, tmp_path / "hostile.pt")
    assert "which were not run" in refused(tmp_path / "hostile.pt", out)


def test_a_folder_that_computes_something_else_does_not_replace_the_old_one(saved, out, monkeypatch):
    checkpoint = saved(MN())
    convert(checkpoint, out)
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    original = convert_efficientat.to_state_dict

    def negated(*args):
        return {
            key: -value if key.endswith("layers.5.project.norm.bias") else value
            for key, value in original(*args).items()
        }

    monkeypatch.setattr(convert_efficientat, "to_state_dict", negated)
    with pytest.raises(ValueError, match="must compute what the checkpoint does"):
        convert(checkpoint, out, force=True)
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    assert sorted(path.name for path in out.parent.iterdir()) == ["mn.pt", "out"]


def test_a_folder_is_replaced_only_by_force_and_brings_its_code(saved, out):
    checkpoint = saved(MN())
    out.mkdir()
    (out / "old").touch()
    assert "must be new or empty" in refused(checkpoint, out)
    convert(checkpoint, out, force=True)
    assert sorted(path.name for path in out.iterdir()) == [
        "README.md", "config.json", "configuration_efficientat.py", "feature_extraction_efficientat.py",
        "feature_extraction_waveforms.py", "model.safetensors", "modeling_efficientat.py", "modeling_waveforms.py",
        "preprocessor_config.json",
    ]  # fmt: skip
    auto_map = json.loads((out / "config.json").read_text())["auto_map"]
    assert all((out / f"{target.partition('.')[0]}.py").is_file() for target in auto_map.values())


def test_the_model_card_says_what_it_is_where_it_comes_from_and_how_to_use_it(saved, out):
    report = convert(saved(MN()), out)
    card = (out / "README.md").read_text()
    for text in ("license: mit", "Copyright (c) 2022 Florian Schmid", report.sha256, "`mn.pt`", "320 ms", "32000 Hz"):
        assert text in card


def test_the_random_state_stays_as_it_is(saved, out):
    checkpoint, before = saved(MN()), torch.get_rng_state()
    convert(checkpoint, out)
    assert torch.equal(torch.get_rng_state(), before)


def test_the_command_says_what_it_found_and_what_comes_next(saved, out, tmp_path):
    (tmp_path / "labels.txt").write_text("a\nb\nc\nd\ne")
    script = ROOT / "conversion" / "convert_efficientat.py"
    command = [sys.executable, script, saved(MN()), out, "--labels", tmp_path / "labels.txt", "--hop-length", "320"]
    environment = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
    for words in ("EfficientAT mn01", "Assumed:   num_mel_bins=128 and hop_length=320", "Reloaded:", "Next:"):
        assert words in done.stdout
    assert done.stderr == "" and load(out).config.id2label[4] == "e"


def test_the_command_refuses_in_one_paragraph(saved, out, capsys):
    with pytest.raises(SystemExit) as stop:
        main([str(saved(MN(), {KERNEL: None})), str(out)])
    error = capsys.readouterr().err
    assert stop.value.code == 2 and "1 missing" in error and "Traceback" not in error


def test_the_feature_extractor_knows_the_models_rate(saved, out):
    convert(saved(MN()), out)
    feature_extractor = EfficientATFeatureExtractor.from_pretrained(out)
    config = load(out).config
    assert feature_extractor.sampling_rate == config.sampling_rate == 32_000
    assert feature_extractor.min_num_samples == config.min_num_samples
