"""The converter against checkpoints in the original's layout: tiny ones made here, and golden ones."""

import hashlib
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoFeatureExtractor, AutoModel, AutoModelForAudioClassification, pipeline
from transformers.utils import logging

from convert_hear_checkpoint import convert, main, revert
from golden import FIXTURES, names
from hear_hf import HEARConfig, HEARForAudioClassification, HEARModel
from helpers import SMALL, noise
from original_checkpoints import TINY, acoustic_model, pretraining_framework, saved, whole_classifier
from original_layout import ACOUSTIC_MODEL, expand_layers

ROOT = Path(__file__).parents[1]


@pytest.fixture
def tiny(tmp_path):
    return lambda content=None: saved(tmp_path, whole_classifier() if content is None else content)


@pytest.fixture
def out(tmp_path):
    return tmp_path / "out"


def assert_same_file(path, expected):
    found = torch.load(path, weights_only=True)
    assert type(found) is type(expected) and list(found) == list(expected)
    for key, tensor in expected.items():
        assert found[key].dtype == tensor.dtype and torch.equal(found[key], tensor), key


@torch.no_grad()
def assert_golden_logits(model, golden):
    clips = names(golden, "small.hear.", "waveform")
    assert len(clips) >= 2
    for clip in clips:
        logits = model(golden[f"{clip}.waveform"][None]).logits[0]
        torch.testing.assert_close(logits, golden[f"{clip}.logits"], rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    "make, kind, architecture",
    [
        (whole_classifier, "whole classifier", HEARForAudioClassification),
        (acoustic_model, "acoustic model alone", HEARModel),
        (pretraining_framework, "pretraining framework", HEARModel),
    ],
)
def test_each_supported_kind_is_told_by_its_keys(tiny, out, make, kind, architecture):
    report = convert(tiny(make()), out, window_overlap=3)
    assert report.kind.name == kind and report.kind.architecture is architecture
    assert json.loads((out / "config.json").read_text())["architectures"] == [architecture.__name__]


def test_every_size_is_read_from_the_shapes(tiny, out):
    report = convert(tiny(), out, window_overlap=3)
    config = HEARConfig.from_pretrained(out)
    assert report.sizes == TINY == {name: getattr(config, name) for name in TINY}
    assert (config.window_overlap, config.task_num_attention_heads) == (3, 3)
    assert AutoFeatureExtractor.from_pretrained(out).sampling_rate == 16_000


def test_a_power_branch_at_32_khz_is_read_from_its_window_and_bins(tiny, out):
    wide = HEARConfig(**TINY | {"sampling_rate": 32_000, "n_fft": 2048}, task_num_attention_heads=3, window_overlap=3)
    report = convert(tiny(whole_classifier(wide)), out, window_overlap=3)
    assert (report.sizes["sampling_rate"], report.sizes["n_fft"]) == (32_000, 2048)
    assert AutoFeatureExtractor.from_pretrained(out).sampling_rate == 32_000
    revert(out, out.with_suffix(".pth"))
    assert_same_file(out.with_suffix(".pth"), whole_classifier(wide))


def test_what_no_checkpoint_shows_is_reported_as_assumed(tiny, out):
    report = convert(tiny(acoustic_model()), out, window_overlap=3)
    assert [assumption.split("=")[0] for assumption in report.assumptions] == [
        "window_overlap",
        "sampling_rate",
        "n_fft",
    ]
    report = convert(tiny(), out, window_overlap=3, force=True)
    assert report.assumptions[1].startswith("task_num_attention_heads=3")


def test_the_report_names_all_that_was_left_out_and_why(tiny, out, capsys):
    checkpoint = tiny(pretraining_framework())
    report = convert(checkpoint, out, window_overlap=3)
    left_out = [key for key in pretraining_framework() if key.startswith(("tokenizer.", "out_linear."))]
    assert list(report.left_out) == left_out
    main([str(checkpoint), str(out), "--window-overlap", "3", "--force"])
    assert "out_linear.* (2 tensors): belongs to the pretraining head" in capsys.readouterr().out


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module.module."])
@pytest.mark.parametrize("nesting", [(), ("state_dict",), ("model",), ("model_state_dict", "model", "state_dict")])
def test_nesting_and_prefixes_of_wrappers_change_nothing(tiny, out, prefix, nesting):
    content = {prefix + key: tensor for key, tensor in acoustic_model().items()}
    for name in nesting:
        content = {name: content, "epoch": 3}
    convert(tiny(content), out, window_overlap=3)
    revert(out, out.with_suffix(".pth"))
    assert_same_file(out.with_suffix(".pth"), acoustic_model())


def test_logits_equal_those_of_the_original(tiny, out):
    golden = load_file(FIXTURES / "small.safetensors")
    convert(tiny(whole_classifier(HEARConfig(**SMALL))), out, window_overlap=6)
    assert_golden_logits(HEARForAudioClassification.from_pretrained(out), golden)


def test_logits_of_the_golden_checkpoint_equal_those_of_the_original(golden_dir, out):
    convert(golden_dir / "small_hear.pth", out, window_overlap=6)
    golden = load_file(golden_dir / "small.safetensors")
    assert_golden_logits(HEARForAudioClassification.from_pretrained(out), golden)


def test_the_golden_pretraining_framework_holds_the_golden_acoustic_model(golden_dir, out, tmp_path):
    convert(golden_dir / "small_pretrain_framework.pth", out, window_overlap=6)
    framework = torch.load(golden_dir / "small_pretrain_framework.pth", weights_only=True)
    revert(out, tmp_path / "acoustic.pth")
    written = torch.load(tmp_path / "acoustic.pth", weights_only=True)
    assert written and all(torch.equal(tensor, framework[f"encoder.{key}"]) for key, tensor in written.items())


@pytest.mark.parametrize("make, prefix", [(acoustic_model, ""), (pretraining_framework, "encoder.")])
@pytest.mark.parametrize("auto_class", [AutoModel, AutoModelForAudioClassification])
def test_an_acoustic_model_loads_into_every_class_and_the_rest_is_missing(tiny, out, make, prefix, auto_class):
    convert(tiny(make()), out, window_overlap=3)
    model, info = auto_class.from_pretrained(out, num_labels=4, output_loading_info=True)
    rest = {name for name in model.state_dict() if "acoustic_model." not in name}
    assert set(info["missing_keys"]) == rest and not info["unexpected_keys"] and not info["mismatched_keys"]
    acoustic = model.base_model.acoustic_model.state_dict()
    for theirs, ours in expand_layers(ACOUSTIC_MODEL, 2):
        assert torch.equal(acoustic[ours], make()[prefix + theirs])


def test_the_folder_loads_through_the_auto_classes_and_the_pipeline(tiny, out):
    convert(tiny(), out, window_overlap=3, id2label=dict(enumerate("abcde")))
    model = AutoModelForAudioClassification.from_pretrained(out)
    feature_extractor = AutoFeatureExtractor.from_pretrained(out)
    waveform = noise(8_000).numpy()
    probs = model(**feature_extractor(waveform, sampling_rate=16_000, return_tensors="pt")).logits.softmax(-1)[0]
    found = pipeline("audio-classification", model=str(out))(waveform, top_k=5)
    assert {row["label"] for row in found} == set("abcde") and found[0]["label"] == "abcde"[probs.argmax()]
    assert np.allclose([row["score"] for row in found], probs.sort(descending=True).values.detach(), atol=1e-5)


def test_the_folder_brings_all_the_code_it_imports(tiny, out):
    convert(tiny(), out, window_overlap=3)
    files = {path.stem for path in out.glob("*.py")}
    imported = {name for path in out.glob("*.py") for name in re.findall(r"from \.(\w+) import", path.read_text())}
    auto_map = json.loads((out / "config.json").read_text())["auto_map"]
    assert {target.split(".")[0] for target in auto_map.values()} | imported <= files
    assert "auto_map" in json.loads((out / "preprocessor_config.json").read_text())


def test_the_model_card_says_what_it_is_and_where_it_comes_from(tiny, out):
    report = convert(tiny(), out, window_overlap=3)
    card = (out / "README.md").read_text()
    for line in ("license: mit", "library_name: transformers", "pipeline_tag: audio-classification"):
        assert f"\n{line}\n" in card
    assert "`tiny.pth`" in card and report.sha256 in card
    assert report.sha256 == hashlib.sha256(tiny().read_bytes()).hexdigest()


@pytest.mark.parametrize("make", [whole_classifier, acoustic_model])
def test_there_and_back_is_equal_to_the_bit(tiny, out, tmp_path, make):
    convert(tiny(make()), out, window_overlap=3)
    revert(out, tmp_path / "back.pth")
    assert_same_file(tmp_path / "back.pth", make())


@pytest.mark.parametrize("name", ["small_hear.pth", "small_acoustic_model_weight.pth"])
def test_golden_checkpoints_come_back_equal_to_the_bit(golden_dir, out, tmp_path, name):
    main([str(golden_dir / name), str(out), "--window-overlap", "6"])
    main([str(out), str(tmp_path / "back.pth"), "--reverse"])
    assert_same_file(tmp_path / "back.pth", torch.load(golden_dir / name, weights_only=True))


def test_the_pretraining_framework_comes_back_as_the_acoustic_model_alone(tiny, out, tmp_path):
    convert(tiny(pretraining_framework()), out, window_overlap=3)
    assert revert(out, tmp_path / "back.pth").name == "acoustic model alone"
    assert list(torch.load(tmp_path / "back.pth", weights_only=True)) == list(acoustic_model())


def test_back_refuses_an_existing_file_unless_forced(tiny, out, tmp_path):
    convert(tiny(), out, window_overlap=3)
    (tmp_path / "back.pth").touch()
    with pytest.raises(ValueError, match="must be new"):
        revert(out, tmp_path / "back.pth")
    revert(out, tmp_path / "back.pth", force=True)
    assert_same_file(tmp_path / "back.pth", whole_classifier())


def test_an_empty_folder_is_filled_and_missing_parents_are_made(tiny, out):
    out.mkdir()
    convert(tiny(), out, window_overlap=3)
    convert(tiny(), out / "new" / "folder", window_overlap=3)
    assert (out / "config.json").exists() and (out / "new" / "folder" / "config.json").exists()


def test_the_random_state_and_the_logging_of_transformers_stay_as_they_are(tiny, out):
    before = torch.get_rng_state(), logging.get_verbosity(), logging.is_progress_bar_enabled()
    convert(tiny(), out, window_overlap=3)
    after = torch.get_rng_state(), logging.get_verbosity(), logging.is_progress_bar_enabled()
    assert torch.equal(before[0], after[0]) and before[1:] == after[1:]


def test_the_command_says_what_it_found_and_what_comes_next(tiny, out):
    command = [
        sys.executable,
        ROOT / "conversion" / "convert_hear_checkpoint.py",
        tiny(),
        out,
        "--window-overlap",
        "3",
    ]
    done = subprocess.run(command, capture_output=True, text=True, env={"PYTHONPATH": str(ROOT)}, check=True)
    for word in ("whole classifier", "hidden_size=12", "parameters", str(out), "largest difference", "Next: "):
        assert word in done.stdout
    assert done.stderr == ""


@pytest.mark.parametrize(
    "name, text",
    [
        ("labels.json", '{"0": "dog", "1": "cat bird", "2": "č", "3": "d", "4": "e"}'),
        ("labels.json", '["dog", "cat bird", "č", "d", "e"]'),
        ("labels.txt", "dog\ncat bird\nč\nd\ne\n"),
        ("labels.txt", "\ufeffdog\r\ncat bird\r\nč\r\nd\r\ne"),
    ],
)
def test_labels_come_from_json_or_from_lines_of_text(tiny, out, tmp_path, name, text):
    (tmp_path / name).write_bytes(text.encode())
    main([str(tiny()), str(out), "--window-overlap", "3", "--id2label", str(tmp_path / name)])
    config = HEARConfig.from_pretrained(out)
    assert config.id2label == {0: "dog", 1: "cat bird", 2: "č", 3: "d", 4: "e"}
    assert config.label2id == {label: index for index, label in config.id2label.items()}
