"""What the converter refuses: checkpoints, labels and folders that are broken, foreign, incomplete or hostile."""

import json
import os
import pickle
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import convert_hear_checkpoint
import output_files
from convert_hear_checkpoint import convert, main, read_labels, revert
from hear_hf import (
    HEARConfig,
    HEARForAudioClassification,
    HEARModel,
    HEARQuantizer,
    HEARQuantizerConfig,
    HEARQuantizerForPreTraining,
)
from helpers import linear_model
from original_checkpoints import (
    TINY_CONFIG,
    TINY_QUANTIZER_CONFIG,
    acoustic_model,
    pretraining_framework,
    saved,
    tokenizer,
    tokenizer_training_framework,
    whole_classifier,
)
from output_files import put_in_place

DISTANCES = "self_attn.relative_position_k.positional_embedding.weight"
CONV = "acoustic_model.feature_extractor.conv.weight"


@pytest.fixture
def tiny(tmp_path):
    return lambda content=None: saved(tmp_path, whole_classifier() if content is None else content)


@pytest.fixture
def out(tmp_path):
    return tmp_path / "out"


def assert_refused(source, target, capsys, *words, options=("--window-overlap", "3")):
    """The command ends with code 2 and one paragraph, without a traceback, and leaves nothing behind."""
    before = sorted(source.parent.iterdir())
    with pytest.raises(SystemExit) as stop:
        main([str(source), str(target), *options])
    error = capsys.readouterr().err
    assert stop.value.code == 2 and "Traceback" not in error and "\n\n" not in error
    assert all(word in error for word in words), error
    assert sorted(source.parent.iterdir()) == before


def test_all_missing_and_all_unexpected_keys_are_listed(tiny, out, capsys):
    missing = ["task_model.pos_embed", "decoder.out.bias", CONV]
    content = {key: tensor for key, tensor in whole_classifier().items() if key not in missing}
    content |= {"decoder.extra.weight": torch.zeros(1), "optimizer.step": torch.zeros(1), "preprocessor.x": None}
    words = [*missing, "3 missing", "decoder.extra.weight", "optimizer.step", "preprocessor.x", "3 unexpected"]
    assert_refused(tiny(content), out, capsys, *words)


@pytest.mark.parametrize(
    "key, tensor, words",
    [
        ("decoder.out.bias", torch.full((5,), torch.nan), ["finite", "5 NaN"]),
        ("decoder.batch_norm.running_var", torch.full((14,), torch.inf), ["finite"]),
        ("decoder.out.bias", torch.zeros(6), ["shape (5,), found: (6,)"]),
        (CONV, torch.zeros(12, 16, 3), ["shape (12, 16, 2), found: (12, 16, 3)"]),
        (CONV, torch.zeros(13, 16, 2), ["hidden_size=13"]),
        (CONV, torch.zeros(12), ["`num_mel_bins` in axis 1"]),
        ("spectrogram_mixture.spectrum_linear.weight", torch.zeros(12, 515), ["shape (12, 514), found: (12, 515)"]),
        ("task_model.pos_embed", torch.zeros(40, 18), ["`task_hidden_size` in axis 2"]),
        ("decoder.out.weight", torch.zeros(0, 14), ["`num_labels`"]),
        ("decoder.out.weight", torch.zeros(5, 14).half(), ["torch.float32", "torch.float16"]),
        ("decoder.batch_norm.num_batches_tracked", torch.tensor(1.0), ["torch.int64"]),
        ("decoder.out.weight", torch.zeros(5, 14).to_sparse(), ["dense"]),
        ("decoder.out.weight", torch.zeros(1).expand(5, 14), ["expanded view"]),
        ("decoder.out.weight", [0.0], ["dense tensor", "list"]),
        ("preprocessor.spectrogram.window", torch.ones(400), ["front end", "other spectra"]),
        ("preprocessor.mel_spectrogram.mel_scale.fb", torch.ones(513, 17), ["(513, 16)"]),
        ("preprocessor.resampler.kernel", torch.ones(1, 1, 28), ["absent at 16000 Hz"]),
    ],
)
def test_a_bad_tensor_is_refused_by_its_name(tiny, out, capsys, key, tensor, words):
    assert_refused(tiny({**whole_classifier(), key: tensor}), out, capsys, f"`{key}`", *words)


@pytest.mark.parametrize(
    "make, key, shape, words",
    [
        (tokenizer, "linear.bias", (8,), ["shape (9,), found: (8,)", "codebook_size=9 from `linear.weight`"]),
        (tokenizer_training_framework, "vector_quantizer.code_book", (9, 7), ["`codebook_dim` in axis 2"]),
        (tokenizer_training_framework, "vector_quantizer.code_book", (2, 9, 7), ["shape (1, 9, 7)"]),
        (tokenizer_training_framework, "vector_quantizer.code_book", (1, 8, 7), ["shape (1, 9, 7)"]),
        (tokenizer_training_framework, "decoder.out_layer.out_linear.weight", (16, 15), ["shape (32, 15)"]),
        (
            tokenizer_training_framework,
            f"decoder.layers.0.{DISTANCES}",
            (20, 3),
            ["shape (22, 3)", "window_length=11"],
        ),
        (pretraining_framework, "out_linear.weight", (8, 12), ["`out_linear.bias` must have shape (8,)"]),
        (pretraining_framework, "tokenizer.linear.weight", (9, 9), ["shape (9, 8)"]),
    ],
)
def test_sizes_that_disagree_in_a_tokenizer_or_a_framework_are_refused(tiny, out, capsys, make, key, shape, words):
    assert_refused(tiny({**make(), key: torch.zeros(shape)}), out, capsys, f"`{key}`", *words)


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"codebook_size": 8}, ["`codebook_size`", "9 in hear_quantizer, 8 in hear"]),
        ({"num_mel_bins": 20}, ["`num_mel_bins`", "16 in hear_quantizer, 20 in hear"]),
    ],
)
def test_a_framework_whose_models_do_not_share_codes_and_spectra_is_refused(tiny, out, capsys, changes, words):
    framework = pretraining_framework(HEARConfig.from_dict(TINY_CONFIG.to_dict() | changes))
    assert_refused(tiny(framework), out, capsys, *words)


def test_an_overlap_that_does_not_fit_the_window_is_refused(tiny, out):
    with pytest.raises(ValueError, match="window_overlap=50 and window_length=10"):
        convert(tiny(), out)


class Malicious:
    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return (Path.touch, (self.target,))


@pytest.mark.parametrize(
    "save", [torch.save, lambda content, path: path.write_bytes(pickle.dumps(content, protocol=2))]
)
def test_code_in_a_checkpoint_is_refused_and_not_run(tmp_path, out, capsys, save):
    checkpoint, trace = tmp_path / "malicious.pth", tmp_path / "trace"
    save({**acoustic_model(), "x": Malicious(trace)}, checkpoint)
    assert_refused(checkpoint, out, capsys, "tensors alone")
    assert not trace.exists()


def test_broken_and_foreign_files_are_refused(tiny, tmp_path, out, capsys):
    intact = tiny().read_bytes()
    contents = {"empty": b"", "truncated": intact[: len(intact) // 2], "text": b"hello\n", "garbled": intact[100:]}
    for name, content in contents.items():
        (tmp_path / f"{name}.pth").write_bytes(content)
        assert_refused(tmp_path / f"{name}.pth", out, capsys, "must be a PyTorch checkpoint")
    save_file(acoustic_model(), tmp_path / "safetensors.pth")
    assert_refused(tmp_path / "safetensors.pth", out, capsys, "must be a PyTorch checkpoint")
    assert_refused(tmp_path / "absent.pth", out, capsys, "must be a file")


@pytest.mark.parametrize("content", [[torch.zeros(1)], torch.zeros(3), {}, {1: torch.zeros(1)}, "text", 5])
def test_files_without_a_state_dict_are_refused(tiny, out, capsys, content):
    assert_refused(tiny(content), out, capsys, "must hold a state dict")


def test_a_dict_nested_in_itself_and_a_foreign_state_dict_are_refused(tiny, out, capsys):
    endless = {}
    endless["model"] = endless
    assert_refused(tiny(endless), out, capsys, "must be one of the original's")
    assert_refused(tiny({"wav2vec2.x": torch.zeros(1)}), out, capsys, "`wav2vec2`")


def test_a_key_that_stands_twice_is_refused(tiny, out, capsys):
    content = {**acoustic_model(), "module.feature_extractor.conv.bias": torch.zeros(12)}
    assert_refused(tiny(content), out, capsys, "`feature_extractor.conv.bias` with and without a prefix")


def test_an_existing_folder_is_refused_unless_forced_and_replaced_only_after_success(tiny, out, monkeypatch):
    out.mkdir()
    (out / "mine.txt").touch()
    with pytest.raises(ValueError, match="must be new or empty"):
        convert(tiny(), out, window_overlap=3)
    with monkeypatch.context() as patch, pytest.raises(ValueError, match="same output"):
        patch.setattr(convert_hear_checkpoint, "OUTPUT_TOLERANCE", -1)
        convert(tiny(), out, window_overlap=3, force=True)
    assert [path.name for path in out.iterdir()] == ["mine.txt"]
    convert(tiny(), out, window_overlap=3, force=True)
    assert not (out / "mine.txt").exists() and (out / "config.json").exists()


@pytest.mark.parametrize("step", [1, 2])
@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError])
def test_a_folder_survives_an_interrupt_while_it_is_replaced(tiny, out, monkeypatch, step, error):
    out.mkdir()
    (out / "mine.txt").touch()
    replace, steps = os.replace, []

    def interrupted(*paths):
        steps.append(paths)
        if len(steps) == step and step == 2:
            raise error
        replace(*paths)
        if len(steps) == step:
            raise error  # when the folder has just been moved away

    monkeypatch.setattr(output_files.os, "replace", interrupted)
    with pytest.raises(error), put_in_place(out) as folder:
        (folder / "config.json").touch()
    assert [path.name for path in out.parent.iterdir() if path.name.lstrip(".").startswith(out.name)] == [out.name]
    assert [path.name for path in out.iterdir()] == ["mine.txt"]


def test_a_folder_that_holds_the_checkpoint_is_never_replaced(tiny):
    with pytest.raises(ValueError, match="must not hold the checkpoint"):
        convert(tiny(), tiny().parent, window_overlap=3, force=True)
    assert tiny().exists()


@pytest.mark.parametrize("different", ["tensor", "output"])
def test_a_folder_that_reloads_differently_is_not_kept(tiny, out, capsys, monkeypatch, different):
    from_pretrained = HEARForAudioClassification.from_pretrained.__func__

    def spoilt(cls, *args, **kwargs):
        model = from_pretrained(cls, *args, **kwargs)
        if different == "tensor":
            model.classifier.out_proj.bias.data += 1e-6
        else:
            model.hear.spectrogram.mel_filters.copy_(model.hear.spectrogram.mel_filters.flip(1))
        return model

    monkeypatch.setattr(HEARForAudioClassification, "from_pretrained", classmethod(spoilt))
    assert_refused(tiny(), out, capsys, f"The reloaded {'tensors' if different == 'tensor' else 'model'} must")


@pytest.mark.parametrize(
    "id2label, message",
    [
        (dict(enumerate("abcd")), "labels 0 to 4, 5 in all, found 4"),
        (dict(enumerate("abcde", start=1)), "labels 0 to 4"),
        (dict(enumerate("abcda")), "a name of its own"),
        (dict(enumerate(["a", "", "c", "d", "e"])), "a name of its own"),
    ],
)
def test_labels_that_do_not_fit_are_refused(tiny, out, id2label, message):
    with pytest.raises(ValueError, match=message):
        convert(tiny(), out, window_overlap=3, id2label=id2label)
    assert not out.exists()


def test_labels_for_a_model_without_a_head_are_refused(tiny, out):
    with pytest.raises(ValueError, match="this checkpoint has no labels"):
        convert(tiny(acoustic_model()), out, window_overlap=3, id2label={0: "a"})


@pytest.mark.parametrize(
    "name, content", [("x.json", b"{broken"), ("x.json", b'{"dog": 0}'), ("x.json", b"[1, 2]"), ("x.txt", b"\xff\xfe")]
)
def test_broken_label_files_are_refused(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=f"{name}` must "):
        read_labels(tmp_path / name)


def test_back_refuses_a_linear_head_by_its_name(tmp_path):
    linear_model().save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="hidden layer, found a linear one"):
        revert(tmp_path, tmp_path / "hear.pth")


def test_back_refuses_what_the_original_has_no_file_for(tmp_path):
    HEARModel(TINY_CONFIG).save_pretrained(tmp_path / "headless")
    with pytest.raises(ValueError, match="unexpected .*`task_model.position_embeddings`"):
        revert(tmp_path / "headless", tmp_path / "back.pth")
    gelu = HEARConfig.from_dict(TINY_CONFIG.to_dict() | {"hidden_act": "gelu"})
    HEARForAudioClassification(gelu).save_pretrained(tmp_path / "gelu")
    with pytest.raises(ValueError, match="`hidden_act` must be silu"):
        revert(tmp_path / "gelu", tmp_path / "back.pth")
    assert not (tmp_path / "back.pth").exists()


@pytest.mark.parametrize("option", [["--window-overlap", "3"], ["--window_overlap", "3"], ["--id2label", "x.json"]])
def test_back_refuses_what_the_folder_already_holds(tiny, out, tmp_path, capsys, option):
    convert(tiny(), out, window_overlap=3)
    words = ["--window_overlap and --id2label must be left out with --reverse"]
    assert_refused(out, tmp_path / "back.pth", capsys, *words, options=["--reverse", *option])


def test_back_needs_the_quantizer_of_a_pretraining_framework(tiny, out, tmp_path, capsys):
    convert(tiny(pretraining_framework()), out, window_overlap=3)
    quantizer = (out / "quantizer").rename(tmp_path / "elsewhere")
    words = ["HEARQuantizer", "sub-folder `quantizer`, found: none", "Copy"]
    assert_refused(out, tmp_path / "back.pth", capsys, *words, options=["--reverse"])
    HEARQuantizerForPreTraining(TINY_QUANTIZER_CONFIG).save_pretrained(out / "quantizer")
    words = ["HEARQuantizer, found: HEARQuantizerForPreTraining", "Load it by HEARQuantizer, and save it again"]
    assert_refused(out, tmp_path / "back.pth", capsys, *words, options=["--reverse"])
    HEARQuantizer.from_pretrained(out / "quantizer").save_pretrained(quantizer)
    shutil.rmtree(out / "quantizer")
    quantizer.rename(out / "quantizer")
    assert revert(out, tmp_path / "back.pth").name == "pretraining framework"


def test_back_refuses_models_that_do_not_share_their_codes(tiny, out, tmp_path):
    convert(tiny(pretraining_framework()), out, window_overlap=3)
    other = HEARQuantizerConfig.from_dict(TINY_QUANTIZER_CONFIG.to_dict() | {"codebook_size": 8})
    HEARQuantizer(other).save_pretrained(out / "quantizer")
    with pytest.raises(ValueError, match="`codebook_size` must be the same .*8 in hear_quantizer, 9 in hear"):
        revert(out, tmp_path / "back.pth")
    assert not (tmp_path / "back.pth").exists()


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"codebook_dim": 6}, r"`vector_quantizer.codebook` must have shape \(9, 6\), found: \(9, 7\)"),
        ({"teacher_hidden_size": None}, "`decoder.teacher_head.weight` must have shape None"),
        ({"architectures": None}, "must be one of HEARForAudioClassification, .*, found: None"),
        ({"model_type": "wav2vec2"}, "must hold a HEAR model, found: wav2vec2"),
    ],
)
def test_back_refuses_a_configuration_of_another_model(tiny, out, tmp_path, changes, message):
    convert(tiny(tokenizer_training_framework()), out, window_overlap=3)
    config = json.loads((out / "config.json").read_text())
    (out / "config.json").write_text(json.dumps(config | changes))
    with pytest.raises(ValueError, match=message):
        revert(out, tmp_path / "back.pth")


def test_back_refuses_a_quantizer_that_was_trained_without_a_teacher(tmp_path):
    config = HEARQuantizerConfig.from_dict(TINY_QUANTIZER_CONFIG.to_dict() | {"teacher_hidden_size": None})
    HEARQuantizerForPreTraining(config).save_pretrained(tmp_path / "untaught")
    with pytest.raises(ValueError, match="2 missing .*`decoder.teacher_head.weight`"):
        revert(tmp_path / "untaught", tmp_path / "back.pth")


@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
def test_back_refuses_a_broken_folder(tiny, out, tmp_path, capsys, name):
    convert(tiny(), out, window_overlap=3)
    (out / name).write_bytes(b"broken")
    assert_refused(out, tmp_path / "back.pth", capsys, "must hold an intact model", options=["--reverse"])
    (out / name).unlink()
    assert_refused(out, tmp_path / "back.pth", capsys, "must be a folder that holds", options=["--reverse"])


def test_names_with_escape_codes_or_750_kb_of_them_do_not_reach_the_terminal(tiny, out, capsys):
    content = whole_classifier() | {f"\x1b[2J{i}{'x' * 700}": torch.zeros(1) for i in range(1_000)}
    with pytest.raises(SystemExit):
        main([str(tiny(content)), str(out), "--window-overlap", "3"])
    error = capsys.readouterr().err
    assert "1000 unexpected" in error and "\x1b" not in error and len(error) < 5_000
