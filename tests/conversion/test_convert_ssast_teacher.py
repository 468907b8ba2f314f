"""The converter of SSAST against a plain model and front end written from the original, and broken checkpoints."""

import json
import math
import os
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from transformers import ASTModel, AutoFeatureExtractor, AutoModel

import convert_ssast_teacher
from convert_ssast_teacher import convert, main
from hear_hf.evaluation.frozen_encoders import FrozenEncoder
from original_checkpoints import whole_classifier

ROOT = Path(__file__).parents[2]
PUBLISHED = {"mel_bins": 128, "patch_frames": 2, "frames": 1024}
SMALL = {"mel_bins": 16, "patch_frames": 4, "frames": 40}
QUERY = "module.v.blocks.0.attn.qkv.weight"
KERNEL = "module.v.patch_embed.proj.weight"

pytestmark = pytest.mark.filterwarnings("ignore:At least one mel filter has all zero values")


class Attention(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.heads, self.qkv, self.proj = heads, nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x):
        q, k, v = self.qkv(x).chunk(3, dim=-1)
        size = x.shape[-1] // self.heads
        outputs = []
        for head in (slice(start, start + size) for start in range(0, x.shape[-1], size)):
            scores = torch.einsum("bid,bjd->bij", q[..., head], k[..., head]) / math.sqrt(size)
            outputs.append(scores.softmax(-1) @ v[..., head])
        return self.proj(torch.cat(outputs, dim=-1))


class Block(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width, eps=1e-6), nn.LayerNorm(width, eps=1e-6)
        self.attn = Attention(width, heads)
        self.mlp = nn.ModuleDict({"fc1": nn.Linear(width, 3 * width), "fc2": nn.Linear(3 * width, width)})

    def forward(self, x):
        x = x + self.attn(self.norm1(x))
        return x + self.mlp["fc2"](nn.functional.gelu(self.mlp["fc1"](self.norm2(x))))


class SSAST(nn.Module):
    """Names its weights as the original does; the forward pass gives HEAR's teacher states, or those of a layer."""

    def __init__(self, width=24, heads=3, layers=2, mel_bins=128, patch_frames=2, frames=1024):
        super().__init__()
        self.p_input_fdim = nn.Parameter(torch.tensor(mel_bins), requires_grad=False)
        self.p_input_tdim = nn.Parameter(torch.tensor(frames), requires_grad=False)
        self.mask_embed = nn.Parameter(torch.zeros(1, 1, width))
        self.v = nn.Module()
        self.v.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.v.dist_token = nn.Parameter(torch.zeros(1, 1, width))
        self.v.pos_embed = nn.Parameter(torch.zeros(1, 2 + frames // patch_frames, width))
        patch = (mel_bins, patch_frames)
        self.v.patch_embed = nn.ModuleDict({"proj": nn.Conv2d(1, width, patch, stride=patch)})
        self.v.blocks = nn.ModuleList(Block(width, heads) for _ in range(layers))
        self.v.norm = nn.LayerNorm(width, eps=1e-6)
        self.v.head, self.v.head_dist = nn.Linear(width, 10), nn.Linear(width, 10)
        self.cpredlayer = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 256))
        self.gpredlayer = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 256))
        # Weights at which each frame's states depend on its input and on the position.
        for name, parameter in self.v.named_parameters():
            scale = parameter[0].numel() ** -0.5 if parameter.ndim > 1 and "blocks" in name else 0.5
            nn.init.normal_(parameter, mean=float("norm" in name and "weight" in name), std=scale)

    @torch.no_grad()
    def forward(self, spectrogram, layer=-1):  # (B, frames, mel_bins)
        x = self.v.patch_embed["proj"](spectrogram.transpose(1, 2).unsqueeze(1)).flatten(2).transpose(1, 2)
        x = torch.cat([self.v.cls_token.expand(len(x), 1, -1), self.v.dist_token.expand(len(x), 1, -1), x], dim=1)
        x = x + self.v.pos_embed
        for block in self.v.blocks if layer == -1 else self.v.blocks[:layer]:
            x = block(x)
        return (self.v.norm(x) if layer == -1 else x)[:, 2:]


def teacher_input(waveform, mel_bins=128, frames=1024):
    """HEAR's: Kaldi's fbank in float64, padded with zeros, normalised. (num_samples,) -> (1, frames, mel_bins)"""
    waveform = torch.from_numpy(waveform).double()
    windows = (waveform - waveform.mean()).unfold(0, 400, 160)
    windows = windows - windows.mean(1, keepdim=True)
    windows = windows - 0.97 * torch.cat([windows[:, :1], windows[:, :-1]], dim=1)
    windows = windows * torch.hann_window(400, periodic=False, dtype=torch.float64)
    power = torch.fft.rfft(windows, n=512).abs().square()
    mel = lambda hertz: 1127 * torch.log1p(torch.as_tensor(hertz, dtype=torch.float64) / 700)  # noqa: E731
    corners = torch.linspace(mel(20), mel(8000), mel_bins + 2, dtype=torch.float64)
    position = (mel(torch.arange(257) * 16_000 / 512) - corners[:-1, None]) / corners.diff()[:1]
    filters = torch.minimum(position[:-1], 1 - position[1:]).clamp(min=0)
    fbank = (power @ filters.T).clamp(min=torch.finfo(torch.float32).eps).log()[:frames]
    fbank = nn.functional.pad(fbank, (0, 0, 0, frames - len(fbank)))
    return ((fbank + 4.2677393) / (2 * 4.5689974)).float()[None]


def noise(seconds, offset=0.2):
    return (0.1 * np.random.default_rng(0).standard_normal(round(seconds * 16_000)) + offset).astype(np.float32)


@pytest.fixture
def saved(tmp_path):
    """Saves a model as the original does, with changes by key (`None`: without it), and gives the file."""

    def save(model, changes=None):
        state_dict = nn.DataParallel(model).state_dict() | (changes or {})
        path = tmp_path / "ssast.pth"
        torch.save({key: value for key, value in state_dict.items() if value is not None}, path)
        return path

    return save


@pytest.fixture
def out(tmp_path):
    return tmp_path / "out"


@pytest.fixture
def teacher(saved, out):
    """A model of the published input size, and the folder that it became."""
    model = SSAST(**PUBLISHED)
    convert(saved(model), out, num_attention_heads=3)
    return model, out


@torch.no_grad()
def folder_states(folder, waveform):
    feature_extractor = AutoFeatureExtractor.from_pretrained(folder)
    inputs = feature_extractor(waveform, sampling_rate=16_000, return_tensors="pt")
    return AutoModel.from_pretrained(folder).eval()(**inputs).last_hidden_state[:, 2:]


@pytest.mark.parametrize("seconds", [0.1, 3.0, 10.24])
def test_hidden_states_of_a_waveform_are_those_of_hears_teacher(teacher, seconds):
    model, folder = teacher
    expected = model(teacher_input(noise(seconds)))
    assert expected.shape == (1, 512, 24) and expected.std(1).mean() > 0.1
    torch.testing.assert_close(folder_states(folder, noise(seconds)), expected, rtol=0, atol=1e-5)


def test_hidden_states_of_a_spectrogram_equal_the_originals(teacher):
    model, folder = teacher
    spectrogram = torch.randn(2, 1150, 128)
    with torch.no_grad():
        states = AutoModel.from_pretrained(folder).eval()(spectrogram).last_hidden_state[:, 2:]
    torch.testing.assert_close(states, model(spectrogram[:, :1024]), rtol=0, atol=1e-5)


@pytest.mark.parametrize("seconds", [0.1, 3.0, 10.24, 12.0])
def test_the_feature_extractor_makes_kaldis_spectrogram_and_pads_it_with_zeros(teacher, seconds):
    found = AutoFeatureExtractor.from_pretrained(teacher[1])(noise(seconds), sampling_rate=16_000, return_tensors="pt")
    torch.testing.assert_close(found["input_values"][:, :1024], teacher_input(noise(seconds)), rtol=0, atol=1e-6)


def test_the_folder_is_a_plain_ast_that_needs_no_code_of_its_own(teacher):
    model, info = AutoModel.from_pretrained(teacher[1], output_loading_info=True)
    assert type(model) is ASTModel and not any(info[name] for name in ("missing_keys", "unexpected_keys"))
    config = model.config
    assert (config.patch_size, config.frequency_stride, config.time_stride) == (128, 128, 2)
    # As `hear_hf/evaluation/families.py` counts them.
    assert ((config.max_length - config.patch_size) // config.time_stride + 1) * config.time_stride == 1024
    assert not list(teacher[1].glob("*.py")) and "auto_map" not in json.loads((teacher[1] / "config.json").read_text())


def test_the_tensors_are_named_as_every_version_of_transformers_saves_them(teacher, tmp_path):
    AutoModel.from_pretrained(teacher[1]).save_pretrained(tmp_path / "again")
    names = [set(load_file(folder / "model.safetensors")) for folder in (teacher[1], tmp_path / "again")]
    assert names[0] == names[1]


@pytest.mark.parametrize("width, heads, layers, sizes", [(128, 2, 1, SMALL), (64, 1, 3, SMALL)])
def test_sizes_are_read_from_the_checkpoint_and_one_head_assumed_per_64(saved, out, width, heads, layers, sizes):
    model = SSAST(width, heads, layers, **sizes)
    found = convert(saved(model), out).sizes
    assert (found.hidden_size, found.num_attention_heads, found.num_hidden_layers) == (width, heads, layers)
    assert (found.intermediate_size, found.patch, found.num_positions) == (3 * width, "16x4", 10)
    expected = model(teacher_input(noise(0.3), mel_bins=16, frames=40))
    torch.testing.assert_close(folder_states(out, noise(0.3)), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("heads, words", [(None, "must be given"), (5, "must divide the hidden size 24")])
def test_a_number_of_heads_that_cannot_be_is_refused(saved, out, heads, words):
    with pytest.raises(ValueError, match=words):
        convert(saved(SSAST(**SMALL)), out, num_attention_heads=heads)


def test_what_is_left_out_is_listed_with_its_reason(saved, out):
    report = convert(saved(SSAST(**SMALL), {"module.mlp_head.1.bias": torch.zeros(3)}), out, num_attention_heads=3)
    kept = {key.removeprefix("module.") for key in nn.DataParallel(SSAST()).state_dict()} - set(report.left_out)
    assert all(key.startswith("v.") and "head" not in key for key in kept)
    for line in ("cpredlayer.* (4 tensors): pretraining head", "mlp_head.* (1 tensors): outside"):
        assert line in str(report)


def refused(saved_file, out):
    """Converts in vain, leaves nothing behind, and gives the message."""
    before = sorted(saved_file.parent.iterdir())
    with pytest.raises(ValueError) as error:
        convert(saved_file, out, num_attention_heads=3)
    assert sorted(saved_file.parent.iterdir()) == before
    return str(error.value)


@pytest.mark.parametrize(
    "changes, words",
    [
        ({KERNEL: torch.zeros(24, 1, 8, 8)}, "patches of 8x8. Take SSAST-Base-Frame-400"),
        ({KERNEL: torch.zeros(24, 1, 16, 5)}, "positions, for 40 frames in patches of 5, found: 12"),
        ({KERNEL: torch.zeros(24, 3, 16, 4)}, "must have shape (24, 1, 16, 4), found: (24, 3, 16, 4)"),
        ({KERNEL: torch.zeros(24, 16)}, "must have 4 axes"),
        ({KERNEL: None}, "must be one of SSAST's"),
        ({QUERY: None}, "1 missing (`v.blocks.0.attn.qkv.weight`)"),
        ({QUERY: torch.zeros(72, 25)}, "must have shape (72, 24), found: (72, 25)"),
        ({QUERY: torch.zeros(72, 24).half()}, "must be torch.float32"),
        ({QUERY: torch.full((72, 24), torch.nan)}, "must be finite"),
        ({"module.v.dist_token": None}, "1 missing (`v.dist_token`)"),
        ({"module.v.blocks.0.ls1.gamma": torch.ones(24)}, "1 unexpected (`v.blocks.0.ls1.gamma`)"),
        ({"module.v.blocks.3.norm1.weight": torch.ones(24)}, "missing (`v.blocks.2.attn.proj.bias`"),
        ({"module.v.pos_embed": torch.zeros(1, 11, 24)}, "2 class tokens and 10 positions"),
        ({"module.p_input_tdim": None}, "`p_input_tdim` must be one positive number"),
        ({"module.p_input_fdim": torch.zeros(2)}, "`p_input_fdim` must be one positive number"),
    ],
)
def test_other_and_broken_checkpoints_are_refused(saved, out, changes, words):
    assert words in refused(saved(SSAST(**SMALL), changes), out)


def test_a_checkpoint_of_hear_is_refused(tmp_path, out):
    torch.save(whole_classifier(), tmp_path / "hear.pth")
    assert "found keys that start with: `acoustic_model`, `decoder`" in refused(tmp_path / "hear.pth", out)


class Hostile:
    def __reduce__(self):
        return os.mkdir, ("ran",)


def test_code_in_a_checkpoint_is_not_run(tmp_path, out, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"module.v.pos_embed": Hostile()}, tmp_path / "hostile.pth")
    assert "which were not run" in refused(tmp_path / "hostile.pth", out)


def swap_class_tokens(state_dict):
    first, second = "embeddings.cls_token", "embeddings.distillation_token"
    return state_dict | {first: state_dict[second], second: state_dict[first]}


@pytest.mark.parametrize("name, value", [("to_ast", swap_class_tokens), ("LAYER_NORM_EPS", 1e-12)])
def test_a_folder_that_computes_something_else_does_not_replace_the_old_one(saved, out, monkeypatch, name, value):
    checkpoint = saved(SSAST(**SMALL))
    convert(checkpoint, out, num_attention_heads=3)
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    original = getattr(convert_ssast_teacher, name)
    replacement = (lambda *args: value(original(*args))) if callable(value) else value
    monkeypatch.setattr(convert_ssast_teacher, name, replacement)
    with pytest.raises(ValueError, match="must compute what the checkpoint does"):
        convert(checkpoint, out, num_attention_heads=3, force=True)
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    assert sorted(path.name for path in out.parent.iterdir()) == ["out", "ssast.pth"]


def test_a_folder_is_replaced_only_by_force(saved, out):
    checkpoint = saved(SSAST(**SMALL))
    out.mkdir()
    (out / "old").touch()
    assert "must be new or empty" in refused(checkpoint, out)
    convert(checkpoint, out, num_attention_heads=3, force=True)
    assert sorted(path.name for path in out.iterdir()) == [
        "README.md", "config.json", "model.safetensors", "preprocessor_config.json"
    ]  # fmt: skip


def test_the_model_card_says_what_it_is_where_it_comes_from_and_how_to_use_it(saved, out):
    report = convert(saved(SSAST(**SMALL)), out, num_attention_heads=3)
    card = (out / "README.md").read_text()
    for text in ("license: bsd-3-clause", "Copyright (c) 2022, Yuan Gong", report.sha256, "`ssast.pth`"):
        assert text in card
    assert "examples/train_quantizer.py --teacher_name_or_path" in card and "one state per 40 ms" in card


def test_the_random_state_and_the_warnings_stay_as_they_are(saved, out):
    checkpoint, before = saved(SSAST(**SMALL)), torch.get_rng_state()
    filters = list(warnings.filters)
    convert(checkpoint, out, num_attention_heads=3)
    assert torch.equal(torch.get_rng_state(), before) and warnings.filters == filters


def test_the_command_says_what_it_found_and_what_comes_next(saved, out, capfd):
    main(["--force", str(saved(SSAST(64, 1, **PUBLISHED))), str(out)])
    output = capfd.readouterr()
    for words in ("patches of 128x2", "Assumed:   num_attention_heads=1", "Left out:", "Reloaded:", "Next:"):
        assert words in output.out
    assert output.err == ""


@pytest.mark.parametrize("option", ["--num_attention_heads", "--num-attention-heads"])
def test_the_command_takes_the_number_of_heads(saved, out, capsys, option):
    main([str(saved(SSAST(**SMALL))), str(out), option, "3"])
    assert "num_attention_heads=3" in capsys.readouterr().out


def test_the_command_refuses_in_one_paragraph(saved, out, capsys):
    with pytest.raises(SystemExit) as stop:
        main([str(saved(SSAST(**SMALL), {KERNEL: torch.zeros(24, 1, 8, 8)})), str(out)])
    error = capsys.readouterr().err
    assert stop.value.code == 2 and "must be frame-based" in error and "Traceback" not in error


@pytest.mark.parametrize("layer", [1, -1])
def test_a_clip_of_25_seconds_is_read_in_parts_as_the_original_reads_each(teacher, layer):
    model, folder = teacher
    clip = noise(25)
    states = FrozenEncoder.from_pretrained(str(folder), layer=layer, device="cpu")([clip], 16_000)[0]
    assert states.shape == (1250, 24)
    parts = [clip[start : start + 163_840] for start in range(0, len(clip), 163_840)]
    expected = torch.cat([model(teacher_input(part), layer)[0] for part in parts])[:1250]
    torch.testing.assert_close(states, expected, rtol=0, atol=1e-5)
