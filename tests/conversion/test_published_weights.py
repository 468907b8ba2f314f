"""The published weights: the commands that the converter's help shows, on small files of the same kind and names.

The files themselves cannot be had offline; these hold the same keys, with drawn weights of other sizes.
"""

import shlex

import pytest
import torch

import convert_hear_checkpoint
import finetune
import pretrain
from hear_hf import HEARForAudioClassification, HEARForPreTraining, HEARQuantizer
from helpers import write_tone
from original_checkpoints import acoustic_model, saved, tokenizer
from original_layout import encoder

MADE = {"acoustic_model_weight.pth": acoustic_model, "tokenizer_weight.pth": tokenizer}
COMMANDS = [shlex.split(line) for line in convert_hear_checkpoint.__doc__.splitlines() if line.startswith("    ")]
DOWNLOADS = [words for words in COMMANDS if words[0] == "curl"]
CONVERSIONS = [words for words in COMMANDS if words[0] == "python" and words[2] in MADE]
(PRETRAINING,) = [words for words in COMMANDS if "examples/pretrain.py" in words]
(FINE_TUNING,) = [words for words in COMMANDS if "examples/finetune.py" in words]
NO_STEP = "--learning_rate 0 --num_train_epochs 1 --disable_tqdm True --use_cpu True".split()


@pytest.fixture
def converted(tmp_path, monkeypatch):
    """Goes to a folder with the files, converted as the help says, and with sounds to train on."""
    monkeypatch.chdir(tmp_path)
    for name, make in MADE.items():
        saved(tmp_path, make(), name)
    for _, script, *arguments in CONVERSIONS:
        assert script == "conversion/convert_hear_checkpoint.py"
        convert_hear_checkpoint.main([*arguments, "--window_overlap", "3"])  # theirs is the default
    for label, frequency in (("low", 200), ("high", 5000)):
        for i in range(4):
            write_tone(tmp_path / "sounds" / label / f"{i}.wav", frequency, seed=i)


def assert_published(module):
    pairs = [pair for part in encoder("", "") for pair in part.pairs({"num_hidden_layers": 2})]
    tensors = module.state_dict()
    assert len(pairs) == len(acoustic_model()) == len(tensors)
    assert all(torch.equal(acoustic_model()[theirs], tensors[ours]) for theirs, ours in pairs)


def test_the_help_downloads_the_two_files_of_the_authors_repository_and_converts_both():
    base = "https://github.com/HarunoriKawano/HEAR/raw/main/models/"
    assert DOWNLOADS == [["curl", "-LO", base + name] for name in MADE]
    assert [arguments[0] for _, _, *arguments in CONVERSIONS] == list(MADE)


def test_the_converted_folders_hold_the_published_tensors(converted):
    quantizer = HEARQuantizer.from_pretrained("hear_quantizer").state_dict()
    pairs = [pair for part in encoder("encoder.") for pair in part.pairs({"num_hidden_layers": 3})]
    pairs += [("linear.weight", "code_head.weight"), ("linear.bias", "code_head.bias")]
    assert len(pairs) == len(tokenizer())
    assert all(torch.equal(tokenizer()[theirs], quantizer[ours]) for theirs, ours in pairs)


def test_the_help_s_fine_tuning_starts_from_the_published_acoustic_model(converted):
    _, _, *arguments = FINE_TUNING
    assert arguments[arguments.index("--acoustic_learning_rate_scale") + 1] == "0.1"
    finetune.main([*arguments, "--output_dir", "run", *NO_STEP])
    model = HEARForAudioClassification.from_pretrained("run")
    assert set(model.config.label2id) == {"low", "high"}
    assert_published(model.hear.acoustic_model)


def test_the_help_s_pretraining_goes_on_from_the_published_acoustic_model(converted):
    _, _, *arguments = PRETRAINING
    smaller = ["--config_overrides", "codebook_size=9", "--logging_steps", "1"]  # theirs is the default size
    pretrain.main([*arguments, "--data_dir", "sounds", "--output_dir", "run", *NO_STEP, *smaller])
    assert_published(HEARForPreTraining.from_pretrained("run").hear.acoustic_model)
    assert HEARQuantizer.from_pretrained("run/quantizer").config.codebook_size == 9
