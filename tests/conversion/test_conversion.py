"""The converter against checkpoints in the original's layout: tiny ones made here, and golden ones."""

import hashlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import (
    AutoFeatureExtractor,
    AutoModel,
    AutoModelForAudioClassification,
    AutoModelForAudioTokenization,
    AutoModelForPreTraining,
    pipeline,
)
from transformers.utils import logging

from convert_hear_checkpoint import convert, main, revert
from golden import FIXTURES, SMALL_QUANTIZER, assert_golden_logits
from hear_hf import (
    HEARConfig,
    HEARForAudioClassification,
    HEARForPreTraining,
    HEARModel,
    HEARQuantizer,
    HEARQuantizerConfig,
    HEARQuantizerForPreTraining,
)
from helpers import SMALL, noise
from original_checkpoints import (
    TINY,
    TINY_QUANTIZER,
    TINY_QUANTIZER_TRAINING,
    acoustic_model,
    pretraining_framework,
    saved,
    tokenizer,
    tokenizer_training_framework,
    whole_classifier,
)
from original_layout import encoder

ROOT = Path(__file__).parents[2]
KINDS = [whole_classifier, acoustic_model, pretraining_framework, tokenizer_training_framework, tokenizer]


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


@pytest.mark.parametrize(
    "make, kind, architecture",
    [
        (whole_classifier, "whole classifier", HEARForAudioClassification),
        (acoustic_model, "acoustic model alone", HEARModel),
        (pretraining_framework, "pretraining framework", HEARForPreTraining),
        (tokenizer_training_framework, "tokenizer training framework", HEARQuantizerForPreTraining),
        (tokenizer, "tokenizer alone", HEARQuantizer),
    ],
)
def test_each_kind_is_told_by_its_keys(tiny, out, make, kind, architecture):
    report = convert(tiny(make()), out, window_overlap=3)
    assert report.kind.name == kind and report.kind.main.architecture is architecture
    assert json.loads((out / "config.json").read_text())["architectures"] == [architecture.__name__]


def test_every_size_is_read_from_the_shapes(tiny, out):
    report = convert(tiny(), out, window_overlap=3)
    config = HEARConfig.from_pretrained(out)
    assert report.main.sizes == TINY == {name: getattr(config, name) for name in TINY}
    assert (config.window_overlap, config.task_num_attention_heads) == (3, 3)
    assert AutoFeatureExtractor.from_pretrained(out).sampling_rate == 16_000


def test_every_size_of_the_tokenizer_and_of_its_training_is_read_from_the_shapes(tiny, out):
    report = convert(tiny(tokenizer_training_framework()), out, window_overlap=3)
    config = HEARQuantizerConfig.from_pretrained(out)
    expected = TINY_QUANTIZER_TRAINING
    assert report.main.sizes == expected == {name: getattr(config, name) for name in expected}
    report = convert(tiny(tokenizer()), out, window_overlap=3, force=True)
    config = HEARQuantizerConfig.from_pretrained(out)
    assert TINY_QUANTIZER == {name: getattr(config, name) for name in TINY_QUANTIZER} and config.window_overlap == 3
    assert report.main.sizes == {name: size for name, size in TINY_QUANTIZER.items() if name != "sampling_rate"}


def test_both_models_of_the_pretraining_framework_are_written_with_their_own_sizes(tiny, out):
    report = convert(tiny(pretraining_framework()), out, window_overlap=3)
    quantizer, model = (AutoModel.from_pretrained(out / "quantizer"), AutoModelForPreTraining.from_pretrained(out))
    assert type(quantizer) is HEARQuantizer and type(model) is HEARForPreTraining
    assert report.models[0].sizes == TINY_QUANTIZER == {n: getattr(quantizer.config, n) for n in TINY_QUANTIZER}
    acoustic = {name: TINY[name] for name in report.main.sizes if name != "codebook_size"} | {"codebook_size": 9}
    assert report.main.sizes == acoustic == {name: getattr(model.config, name) for name in acoustic}
    assert report.main.num_parameters == sum(parameter.numel() for parameter in model.parameters())
    assert (out / "README.md").is_file() and (out / "quantizer" / "README.md").is_file()


def test_a_power_branch_at_32_khz_is_read_from_its_window_and_bins(tiny, out):
    wide = HEARConfig(**TINY | {"sampling_rate": 32_000, "n_fft": 2048}, task_num_attention_heads=3, window_overlap=3)
    report = convert(tiny(whole_classifier(wide)), out, window_overlap=3)
    assert (report.main.sizes["sampling_rate"], report.main.sizes["n_fft"]) == (32_000, 2048)
    assert AutoFeatureExtractor.from_pretrained(out).sampling_rate == 32_000
    revert(out, out.with_suffix(".pth"))
    assert_same_file(out.with_suffix(".pth"), whole_classifier(wide))


def test_what_no_checkpoint_shows_is_reported_as_assumed(tiny, out):
    expected = {
        whole_classifier: ["window_overlap=3", "task_num_attention_heads=3"],
        acoustic_model: ["window_overlap=3", "sampling_rate=16000", "n_fft=1024"],
        pretraining_framework: ["window_overlap=3", "n_fft=1024"],
        tokenizer_training_framework: ["window_overlap=3", "gumbel_temperature=2.0"],
        tokenizer: ["window_overlap=3", "sampling_rate=16000", "codebook_dim=32"],
    }
    for make in KINDS:
        report = convert(tiny(make()), out, window_overlap=3, force=True)
        assert [re.match(r"[\w.=]+\w", found).group() for found in report.main.assumptions] == expected[make]
        assert all(assumption in str(report) for assumption in report.main.assumptions)


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


@torch.no_grad()
def assert_golden_pretraining(folder, golden):
    waveform, mask = golden["small.mam.waveform"], golden["small.mam.mask"]
    labels = HEARQuantizer.from_pretrained(folder / "quantizer")(waveform).codes
    assert torch.equal(labels, golden["small.mam.labels"])
    outputs = HEARForPreTraining.from_pretrained(folder)(waveform, mask_time_indices=mask, labels=labels)
    torch.testing.assert_close(outputs.logits, golden["small.mam.logits"], rtol=0, atol=1e-5)
    torch.testing.assert_close(outputs.loss, golden["small.mam.loss"], rtol=0, atol=1e-5)


@torch.no_grad()
def assert_golden_losses(folder, golden):
    model = HEARQuantizerForPreTraining.from_pretrained(folder)
    teacher = golden["small.tokenizer_training.teacher_hidden_states"]
    loss = model(golden["small.tokenizer_training.waveform"], teacher_hidden_states=teacher).loss
    torch.testing.assert_close(loss, golden["small.tokenizer_training.losses_weighted"].sum(), rtol=0, atol=1e-5)


def test_the_converted_frameworks_give_the_original_s_losses(tiny, out):
    golden, quantizer = load_file(FIXTURES / "small.safetensors"), HEARQuantizerConfig(**SMALL_QUANTIZER)
    framework = pretraining_framework(HEARConfig(**SMALL, codebook_size=64), quantizer)
    convert(tiny(framework), out, window_overlap=6)
    assert_golden_pretraining(out, golden)
    convert(tiny(tokenizer_training_framework(quantizer)), out, window_overlap=6, force=True)
    assert_golden_losses(out, golden)


def test_the_converted_golden_frameworks_give_the_original_s_losses(golden_dir, out):
    golden = load_file(golden_dir / "small.safetensors")
    convert(golden_dir / "small_pretrain_framework.pth", out, window_overlap=6)
    assert_golden_pretraining(out, golden)
    convert(golden_dir / "small_tokenizer_train_framework.pth", out, window_overlap=6, force=True)
    assert_golden_losses(out, golden)


def test_the_golden_tokenizer_and_both_frameworks_hold_the_same_quantizer(golden_dir, out):
    found = []
    for name in ("tokenizer_weight", "tokenizer_train_framework", "pretrain_framework"):
        convert(golden_dir / f"small_{name}.pth", out, window_overlap=6, force=True)
        folder = out / "quantizer" if name == "pretrain_framework" else out
        found.append(HEARQuantizer.from_pretrained(folder).state_dict())
    assert all(torch.equal(tensor, other[key]) for other in found[1:] for key, tensor in found[0].items())


def assert_holds(module, original, prefix):
    tensors = module.state_dict()
    pairs = [pair for part in encoder(prefix) for pair in part.pairs({"num_hidden_layers": 9})]
    compared = [(theirs, ours) for theirs, ours in pairs if theirs in original]
    assert len(compared) == len(tensors)
    assert all(torch.equal(tensors[ours.removeprefix("acoustic_model.")], original[a]) for a, ours in compared)


@pytest.mark.parametrize("make, prefix", [(acoustic_model, ""), (pretraining_framework, "encoder.")])
@pytest.mark.parametrize("auto_class", [AutoModel, AutoModelForAudioClassification])
def test_an_acoustic_model_loads_into_every_class_and_the_rest_is_missing(tiny, out, make, prefix, auto_class):
    convert(tiny(make()), out, window_overlap=3)
    model, info = auto_class.from_pretrained(out, num_labels=4, output_loading_info=True)
    rest = {name for name in model.state_dict() if "acoustic_model." not in name}
    assert set(info["missing_keys"]) == rest and not info["mismatched_keys"]
    assert {key.split(".")[0] for key in info["unexpected_keys"]} == ({"code_head"} if prefix else set())
    assert_holds(model.base_model.acoustic_model, make(), prefix)
    assert torch.isfinite(model(noise(9000)[None])[0]).all()


@pytest.mark.parametrize("auto_class", [AutoModel, AutoModelForAudioTokenization, HEARQuantizer])
@pytest.mark.parametrize("make", [tokenizer, tokenizer_training_framework])
def test_a_quantizer_loads_whole_whether_alone_or_with_what_trained_it(tiny, out, make, auto_class):
    convert(tiny(make()), out, window_overlap=3)
    model, info = auto_class.from_pretrained(out, output_loading_info=True)
    assert type(model) is HEARQuantizer
    assert not any(info[name] for name in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    prefix = "" if make is tokenizer else "tokenizer."
    assert_holds(model.acoustic_model, make(), f"{prefix}encoder.")
    assert torch.equal(model.code_head.weight, make()[f"{prefix}linear.weight"])


@pytest.mark.parametrize("make", [pretraining_framework, tokenizer_training_framework])
def test_a_framework_loads_whole_for_more_pretraining(tiny, out, make):
    report = convert(tiny(make()), out, window_overlap=3)
    model, info = AutoModelForPreTraining.from_pretrained(out, output_loading_info=True)
    assert type(model) is report.kind.main.architecture
    assert not any(info[name] for name in ("missing_keys", "unexpected_keys", "mismatched_keys"))


def test_the_folder_loads_through_the_auto_classes_and_the_pipeline(tiny, out):
    convert(tiny(), out, window_overlap=3, id2label=dict(enumerate("abcde")))
    model = AutoModelForAudioClassification.from_pretrained(out)
    feature_extractor = AutoFeatureExtractor.from_pretrained(out)
    waveform = noise(8_000).numpy()
    probs = model(**feature_extractor(waveform, sampling_rate=16_000, return_tensors="pt")).logits.softmax(-1)[0]
    found = pipeline("audio-classification", model=str(out))(waveform, top_k=5)
    assert {row["label"] for row in found} == set("abcde") and found[0]["label"] == "abcde"[probs.argmax()]
    assert np.allclose([row["score"] for row in found], probs.sort(descending=True).values.detach(), atol=1e-5)


@pytest.mark.parametrize("make", KINDS)
def test_the_folder_brings_all_the_code_it_imports(tiny, out, make):
    convert(tiny(make()), out, window_overlap=3)
    for config in out.rglob("config.json"):
        files = list(config.parent.glob("*.py"))
        imported = {name for path in files for name in re.findall(r"from \.(\w+) import", path.read_text())}
        auto_map = json.loads(config.read_text())["auto_map"]
        assert {target.split(".")[0] for target in auto_map.values()} | imported <= {path.stem for path in files}
        assert "auto_map" in json.loads((config.parent / "preprocessor_config.json").read_text())


def test_the_model_card_says_what_it_is_and_where_it_comes_from(tiny, out):
    report = convert(tiny(), out, window_overlap=3)
    card = (out / "README.md").read_text()
    for line in ("license: mit", "library_name: transformers", "pipeline_tag: audio-classification"):
        assert f"\n{line}\n" in card
    assert "`tiny.pth`" in card and report.sha256 in card
    assert report.sha256 == hashlib.sha256(tiny().read_bytes()).hexdigest()


@pytest.mark.parametrize("make", KINDS)
def test_there_and_back_is_equal_to_the_bit(tiny, out, tmp_path, make):
    convert(tiny(make()), out, window_overlap=3)
    revert(out, tmp_path / "back.pth")
    assert_same_file(tmp_path / "back.pth", make())


@pytest.mark.parametrize(
    "name", ["hear", "acoustic_model_weight", "pretrain_framework", "tokenizer_train_framework", "tokenizer_weight"]
)
def test_golden_checkpoints_come_back_equal_to_the_bit(golden_dir, out, tmp_path, name):
    checkpoint = golden_dir / f"small_{name}.pth"
    main([str(checkpoint), str(out), "--window_overlap", "6"])
    main([str(out), str(tmp_path / "back.pth"), "--reverse"])
    assert_same_file(tmp_path / "back.pth", torch.load(checkpoint, weights_only=True))


def test_models_that_went_on_training_come_back_with_their_new_weights(tiny, out, tmp_path, capsys):
    convert(tiny(tokenizer_training_framework()), out, window_overlap=3)
    model = HEARQuantizerForPreTraining.from_pretrained(out)
    model.anneal_temperature()
    model.vector_quantizer.codebook.data += 1
    model.save_pretrained(tmp_path / "more")
    main(["--reverse", str(tmp_path / "more"), str(tmp_path / "back.pth")])
    assert "Left out:  vector_quantizer.num_updates" in capsys.readouterr().out
    expected = tokenizer_training_framework()
    expected["vector_quantizer.code_book"] += 1
    assert_same_file(tmp_path / "back.pth", expected)


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


@pytest.mark.parametrize(
    "make, command",
    [
        (whole_classifier, "predict.py {} clip.wav"),
        (acoustic_model, "finetune.py --model_name_or_path {} --acoustic_learning_rate_scale 0.1"),
        (pretraining_framework, "finetune.py --model_name_or_path {} --acoustic_learning_rate_scale 0.1"),
        (tokenizer_training_framework, "pretrain.py --quantizer_name_or_path {}"),
        (tokenizer, "pretrain.py --quantizer_name_or_path {}"),
    ],
)
def test_the_report_says_what_was_found_and_written_and_what_comes_next(tiny, out, make, command):
    report = convert(tiny(make()), out, window_overlap=3)
    num_parameters = sum(model.num_parameters for model in report.models)
    num_learned = sum(
        tensor.numel() for key, tensor in make().items() if not re.search("preprocessor|running|num_", key)
    )
    assert str(report).startswith(f"Found:     {report.kind.name}, {num_parameters:,} parameters\n")
    assert num_parameters == num_learned
    assert all(
        f"Written:   {model.output_dir} ({model.layout.architecture.__name__})\n" in str(report)
        for model in report.models
    )
    assert str(report).endswith(f"\nNext:      python examples/{command.format(out)}")


def test_the_command_says_what_it_found_and_what_comes_next(tiny, out, capfd):
    main([str(tiny()), str(out), "--window-overlap", "3"])
    output = capfd.readouterr()
    for word in ("whole classifier", "hidden_size=12", "parameters", str(out), "largest difference", "Next: "):
        assert word in output.out
    assert output.err == ""


# Runs modules as scripts, each with one argument.
AS_SCRIPTS = """
import runpy, sys

for script in sys.argv[1:]:
    sys.argv = [script, "--help"]
    try:
        runpy.run_module(script, run_name="__main__")
    except SystemExit as stop:
        print(f"{script} ends with", stop.code)
"""


def test_both_commands_run_as_scripts_with_no_more_than_the_package_beside_their_own_folder():
    scripts = ["convert_hear_checkpoint", "convert_ssast_teacher"]
    environment = {"PYTHONPATH": os.pathsep.join([str(ROOT / "conversion"), str(ROOT)])}
    command = [sys.executable, "-c", AS_SCRIPTS, *scripts]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
    for script in scripts:
        assert f"usage: {script} " in done.stdout and f"{script} ends with 0" in done.stdout
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
