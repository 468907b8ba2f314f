"""examples/train_quantizer.py and examples/pretrain.py end to end, on tiny models and clips that are made here."""

import json
import os
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile
import torch
from transformers import AutoModel, AutoModelForPreTraining

import pretrain
import train_quantizer
from hear_hf import (
    HEARFeatureExtractor,
    HEARForAudioClassification,
    HEARForPreTraining,
    HEARQuantizer,
    HEARQuantizerConfig,
    HEARQuantizerForPreTraining,
)
from hear_hf.data.clips import PretrainingClips
from hear_hf.training.pretraining import PretrainingCollator
from hear_hf.training.teachers import Teacher
from helpers import save_wav2vec2

SAMPLING_RATE = 16_000
LAYERS = (
    "hidden_size=16,intermediate_size=24,num_hidden_layers=1,num_attention_heads=2,window_length=20,window_overlap=4,"
    "hidden_dropout=0.0,activation_dropout=0.0,attention_dropout=0.0"
)
QUANTIZER = f"{LAYERS},codebook_size=12,codebook_dim=4,decoder_hidden_size=16,decoder_intermediate_size=24," + (
    "decoder_num_hidden_layers=1,decoder_num_attention_heads=2"
)
MODEL = f"{LAYERS},task_hidden_size=8,task_num_attention_heads=2,task_intermediate_size=16"
QUIET = ["--report_to", "none", "--disable_tqdm", "True", "--use_cpu", "True", "--logging_steps", "1", "--seed", "3"]


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    """A folder of sixteen tones in noise, 0.2 to 0.7 s long."""
    folder = tmp_path_factory.mktemp("clips")
    rng = np.random.default_rng(0)
    for i in range(16):
        time = np.arange(SAMPLING_RATE * (4 + 10 * i // 15) // 20) / SAMPLING_RATE
        tone = 0.3 * np.sin(2 * np.pi * 200 * (1 + i % 4) * time) + 0.03 * rng.standard_normal(len(time))
        soundfile.write(folder / f"{i:02}.wav", tone, SAMPLING_RATE)
    return folder


def quantizer_arguments(clips: Path, output_dir: Path, *more: str) -> list[str]:
    arguments = ["--data_dir", str(clips), "--output_dir", str(output_dir), "--config_overrides", QUANTIZER]
    return [
        *arguments,
        "--max_steps",
        "4",
        "--per_device_train_batch_size",
        "4",
        "--validation_share",
        "0.2",
        *QUIET,
        *more,
    ]


def pretraining_arguments(clips: Path, quantizer: Path, output_dir: Path, *more: str) -> list[str]:
    arguments = ["--data_dir", str(clips), "--output_dir", str(output_dir), "--config_overrides", MODEL]
    arguments += ["--quantizer_name_or_path", str(quantizer), "--max_steps", "4", "--per_device_train_batch_size", "4"]
    return [*arguments, "--validation_share", "0.2", *QUIET, *more]


@pytest.fixture(scope="module")
def quantizer(clips, tmp_path_factory):
    """The folder of a quantizer trained without a teacher."""
    folder = tmp_path_factory.mktemp("runs") / "quantizer"
    train_quantizer.main(quantizer_arguments(clips, folder))
    return folder


@pytest.fixture
def reports():
    """Named by a test that reads the card or the plots of its own run."""


@pytest.fixture(autouse=True)
def no_reports(request, monkeypatch):
    """Other tests go without, except in fixtures: card and plots take longer than the training."""
    if "reports" not in request.fixturenames:
        for command in (train_quantizer, pretrain):
            monkeypatch.setattr(command, "report_pretraining", lambda *args: None)


def history(folder: Path) -> list[dict]:
    return json.loads((folder / "trainer_state.json").read_text())["log_history"]


def losses(folder: Path, name: str = "loss") -> list[float]:
    return [entry[name] for entry in history(folder) if name in entry]


def test_the_collator_hides_the_same_exact_share_of_a_clip_in_every_batch():
    collator = PretrainingCollator(HEARFeatureExtractor(), mask_time_prob=0.4, mask_time_length=3)
    items = [{"input_values": np.ones(320 * n, np.float32) * np.arange(320 * n), "seed": n} for n in (10, 25, 40)]
    items = [{**item, "input_values": item["input_values"].astype(np.float32) / 1e5} for item in items]
    together = collator(items)["mask_time_indices"]
    assert together.sum(1).tolist() == [4, 10, 16]
    for row, item in zip(together, items, strict=True):
        alone = collator([item])["mask_time_indices"][0]
        assert torch.equal(row[: len(alone)], alone) and not row[len(alone) :].any()


def test_training_a_quantizer_leaves_a_model_its_card_and_plots(quantizer):
    model = AutoModel.from_pretrained(quantizer)
    assert isinstance(model, HEARQuantizer) and model.config.teacher_hidden_size is None
    for name in ("README.md", "training_curves.png", "codes.png", "clip.png", "preprocessor_config.json"):
        assert (quantizer / name).stat().st_size > 500 or name.endswith("json")
    assert "reconstruct the spectrogram alone" in (quantizer / "README.md").read_text()


def test_each_loss_the_codes_and_the_speed_are_logged(quantizer):
    expected = {"loss", "reconstruction_loss", "diversity_loss", "temperature", "code_perplexity", "code_usage"}
    assert expected | {"audio_hours_per_second"} <= history(quantizer)[0].keys()
    evaluated = next(entry for entry in history(quantizer) if "eval_loss" in entry)
    assert {f"eval_{name}" for name in expected} <= evaluated.keys()


def test_the_temperature_falls_to_its_minimum_in_its_share_of_the_steps_and_is_saved(quantizer):
    temperatures = losses(quantizer, "temperature")
    assert temperatures == pytest.approx([2.0, 2 * 0.25 ** (1 / 3), 2 * 0.25 ** (2 / 3), 0.5], rel=1e-5)
    model = AutoModelForPreTraining.from_pretrained(quantizer)
    assert isinstance(model, HEARQuantizerForPreTraining) and model.vector_quantizer.num_updates == 4


def test_a_transformers_model_teaches(clips, reports, tmp_path):
    save_wav2vec2(tmp_path / "teacher")
    teacher = ["--teacher_name_or_path", str(tmp_path / "teacher"), "--teacher_layer", "1"]
    train_quantizer.main(quantizer_arguments(clips, tmp_path / "run", *teacher))
    assert AutoModelForPreTraining.from_pretrained(tmp_path / "run").config.teacher_hidden_size == 20
    distillation = losses(tmp_path / "run", "distillation_loss")
    assert len(distillation) == 4 and all(0 < loss < 2 for loss in distillation)
    assert "layer 1 of `teacher`" in (tmp_path / "run" / "README.md").read_text()


@pytest.mark.parametrize("whitening", [0.0, 0.5, 1.0])
def test_a_teacher_s_components_are_divided_by_a_power_of_their_deviation(whitening):
    states = torch.randn(1, 500, 2, generator=torch.Generator().manual_seed(0)) * torch.tensor([0.5, 8.0]) + 3
    teacher = Teacher(Mock(return_value=states, hidden_size=2), SAMPLING_RATE)
    teacher.standardize([np.zeros(80_000)], whitening)
    expected = (states - states.mean(1)) / states.std(1, correction=0) ** whitening
    expected = expected[:, ::2]  # each frame of 20 ms is centred in a frame of 10 ms of the teacher
    torch.testing.assert_close(teacher(torch.zeros(1, 80_000), torch.ones(1, 80_000), [250]), expected)


@pytest.fixture
def taught_clips(clips, tmp_path):
    """A parquet file of the clips with the states of a teacher of 10 frames a second, 6 wide."""
    files = sorted(clips.iterdir())
    rng = np.random.default_rng(1)
    states = [rng.standard_normal((1 + soundfile.info(file).frames // 1600, 6)).tolist() for file in files]
    table = pa.table(
        {"audio": [{"bytes": f.read_bytes(), "path": f.name} for f in files], "teacher_hidden_states": states}
    )
    pq.write_table(table, tmp_path / "clips.parquet")
    return tmp_path / "clips.parquet"


def test_precomputed_states_of_any_frame_rate_teach(taught_clips, clips, tmp_path):
    arguments = quantizer_arguments(clips, tmp_path / "run", "--teacher_frame_seconds", "0.1")
    arguments[:2] = ["--train_file", str(taught_clips)]
    train_quantizer.main(arguments)
    assert AutoModelForPreTraining.from_pretrained(tmp_path / "run").config.teacher_hidden_size == 6
    assert len(losses(tmp_path / "run", "distillation_loss")) == 4


@pytest.fixture(scope="module")
def pretrained(clips, quantizer, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "pretrained"
    pretrain.main(pretraining_arguments(clips, quantizer, folder))
    return folder


def test_pretraining_leaves_a_model_that_a_classifier_starts_from(pretrained):
    model = AutoModelForPreTraining.from_pretrained(pretrained)
    assert isinstance(model, HEARForPreTraining) and model.config.codebook_size == 12
    classifier = HEARForAudioClassification.from_pretrained(pretrained, num_labels=3)
    ours, theirs = classifier.hear.acoustic_model.state_dict(), model.hear.acoustic_model.state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    # The last is the code of the quantizer in the sub-folder, which Transformers looks for in the root.
    left = {"training_curves.png", "codes.png", "clip.png", "README.md", "quantizer", "modeling_hear_quantizer.py"}
    assert left <= {p.name for p in pretrained.iterdir()}


def test_masked_accuracy_and_the_codes_are_logged(pretrained):
    names = {"loss", "masked_accuracy", "code_perplexity", "code_usage"}
    assert names | {"audio_hours_per_second"} <= history(pretrained)[0].keys()
    assert any({f"eval_{name}" for name in names} <= entry.keys() for entry in history(pretrained))


def test_masked_modelling_learns(clips, quantizer, tmp_path):
    more = ["--learning_rate", "1e-2", "--eval_strategy", "no", "--save_strategy", "no"]
    arguments = pretraining_arguments(clips, quantizer, tmp_path, *more)
    arguments[arguments.index("--max_steps") + 1] = "80"
    pretrain.main(arguments)
    assert np.mean(losses(tmp_path)[-5:]) < 0.8 * np.mean(losses(tmp_path)[:2])


@pytest.mark.parametrize("option", ["--teacher_file", "--teacher_column_name", "--teacher_whitening"])
def test_masked_modelling_has_no_options_of_a_teacher(tmp_path, option, capsys):
    with pytest.raises(SystemExit):
        pretrain.main(pretraining_arguments(tmp_path, tmp_path, tmp_path / "run", option, "0.5"))
    assert f"unknown arguments: {option} 0.5" in capsys.readouterr().err


def test_masked_modelling_leaves_a_teacher_s_column_alone(taught_clips, clips, quantizer, tmp_path):
    arguments = pretraining_arguments(clips, quantizer, tmp_path / "run")
    arguments[:2] = ["--train_file", str(taught_clips)]
    pretrain.main(arguments)
    assert len(losses(tmp_path / "run")) == 4


def test_gradient_accumulation_changes_nothing(clips, quantizer, tmp_path):
    # With plain gradient descent: Adam blows up the rounding of vanishing gradients.
    for name, size, steps in (("whole", "4", "1"), ("accumulated", "1", "4")):
        more = ["--gradient_accumulation_steps", steps, "--eval_strategy", "no", "--save_strategy", "no"]
        more += ["--optim", "sgd", "--learning_rate", "0.3"]
        arguments = pretraining_arguments(clips, quantizer, tmp_path / name, *more)
        arguments[arguments.index("--per_device_train_batch_size") + 1] = size
        pretrain.main(arguments)
    assert losses(tmp_path / "accumulated") == pytest.approx(losses(tmp_path / "whole"), abs=1e-5)
    whole, accumulated = (HEARForPreTraining.from_pretrained(tmp_path / name) for name in ("whole", "accumulated"))
    for ours, theirs in zip(whole.parameters(), accumulated.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)


@pytest.mark.parametrize("stage", [1, 2])
def test_a_resumed_run_continues_the_same_losses(stage, clips, quantizer, tmp_path):
    def run(name: str, *more: str) -> list[float]:
        more = ["--eval_strategy", "no", "--save_steps", "2", *more]
        if stage == 1:
            train_quantizer.main(quantizer_arguments(clips, tmp_path / name, *more))
        else:
            pretrain.main(pretraining_arguments(clips, quantizer, tmp_path / name, *more))
        return losses(tmp_path / name)

    whole = run("run")
    resumed = run("resumed", "--resume_from_checkpoint", str(tmp_path / "run" / "checkpoint-2"))
    assert resumed == pytest.approx(whole, abs=1e-6)


# Runs commands with arguments, given as JSON, as one of several processes.
DRIVER = """
import importlib, json, sys

for command, arguments in json.loads(sys.argv[1]):
    importlib.import_module(command).main(arguments)
"""


def in_two_processes(*runs: tuple[str, list[str]]) -> None:
    """Runs commands on two processes of the CPU, as `torchrun` and `accelerate launch` start them."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = str(server.getsockname()[1])
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1", "WORLD_SIZE": "2"}
    environment |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    command = [sys.executable, "-c", DRIVER, json.dumps(runs)]
    ranks = [{"RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(2)]
    with ThreadPoolExecutor() as pool:
        options = {"capture_output": True, "text": True, "timeout": 150}
        for result in pool.map(lambda rank: subprocess.run(command, env=environment | rank, **options), ranks):
            assert result.returncode == 0, result.stderr


def halved(arguments: list[str]) -> list[str]:
    """The same batch, half of it on each of two processes."""
    arguments = [*arguments, "--per_device_eval_batch_size", "1"]
    arguments[arguments.index("--per_device_train_batch_size") + 1] = "2"
    return arguments


@pytest.fixture(scope="module")
def one_and_two(clips, quantizer, tmp_path_factory):
    """The folder of both stages, trained on one process and on two."""
    folder = tmp_path_factory.mktemp("processes")
    more = ["--eval_strategy", "no", "--save_strategy", "no", "--validation_share", "0.25"]
    # Each process draws Gumbel noise of its own, so the weights are kept, and what has no noise is compared.
    still = ["--learning_rate", "0"]

    def arguments(name: str) -> tuple[list[str], list[str]]:
        return (
            quantizer_arguments(clips, folder / name / "quantizer", *still, *more),
            pretraining_arguments(clips, quantizer, folder / name / "pretrained", *more),
        )

    for command, each in zip((train_quantizer, pretrain), arguments("one"), strict=True):
        command.main(each)
    in_two_processes(*zip(("train_quantizer", "pretrain"), map(halved, arguments("two")), strict=True))
    return folder


def assert_same_losses(folder: Path, stage: str, names: list[str]) -> None:
    for name in names:
        one, two = (losses(folder / number / stage, name) for number in ("one", "two"))
        assert two == pytest.approx(one, abs=1e-4) and len(one) == (1 if name.startswith("eval") else 4)


@pytest.mark.slow
def test_two_processes_give_the_losses_of_one_in_masked_modelling(one_and_two):
    names = ["loss", "masked_accuracy", "code_perplexity", "code_usage", "eval_loss", "eval_masked_accuracy"]
    assert_same_losses(one_and_two, "pretrained", names)


@pytest.mark.slow
def test_two_processes_give_the_losses_of_one_in_the_quantizer_but_for_the_noise(one_and_two):
    names = ["code_perplexity", "code_usage", "temperature", "eval_reconstruction_loss", "eval_code_usage"]
    assert_same_losses(one_and_two, "quantizer", names)


def test_precomputed_codes_are_those_made_on_the_fly_where_clips_are_not_cropped(clips, quantizer, tmp_path):
    more = ["--max_length_seconds", "2", "--eval_strategy", "no", "--save_strategy", "no"]
    pretrain.main(pretraining_arguments(clips, quantizer, tmp_path / "fly", *more))
    pretrain.main(pretraining_arguments(clips, quantizer, tmp_path / "once", *more, "--precompute_codes", "True"))
    assert losses(tmp_path / "once") == pytest.approx(losses(tmp_path / "fly"), abs=1e-6)


def test_broken_silent_and_short_files_are_skipped_and_too_many_are_an_error(clips, quantizer, tmp_path, caplog):
    for file in sorted(clips.iterdir())[:8]:
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "broken.wav").write_bytes(b"RIFF, but no more")
    soundfile.write(tmp_path / "silent.wav", np.zeros(8000), SAMPLING_RATE)
    soundfile.write(tmp_path / "short.wav", np.ones(300) * 0.1, SAMPLING_RATE)
    more = ["--validation_share", "0", "--max_steps", "6"]
    arguments = pretraining_arguments(tmp_path, quantizer, tmp_path / "run", *more)
    pretrain.main([*arguments, "--max_unusable_share", "0.3"])
    assert np.isfinite(losses(tmp_path / "run")).all()
    assert "3 unusable clips were skipped" in caplog.text
    with pytest.raises(ValueError, match="At most 10% of the clips may be unusable, found 2 of"):
        pretrain.main([*arguments[:3], str(tmp_path / "again"), *arguments[4:]])


def test_a_stream_is_trained_on_for_max_steps(taught_clips, clips, quantizer, tmp_path):
    arguments = pretraining_arguments(clips, quantizer, tmp_path / "run", "--streaming", "True")
    arguments[:2] = ["--train_file", str(taught_clips)]
    pretrain.main(arguments)
    assert len(losses(tmp_path / "run")) == 4
    arguments[arguments.index("--max_steps") + 1] = "-1"
    with pytest.raises(ValueError, match="`max_steps` must be given"):
        pretrain.main(arguments)


def test_balanced_sources_are_trained_on(clips, quantizer, tmp_path, monkeypatch):
    drawn, read = [], PretrainingClips.__getitem__
    monkeypatch.setattr(PretrainingClips, "__getitem__", lambda self, index: drawn.append(index) or read(self, index))
    more = ["--source_weights", "1", "3", "--validation_share", "0", "--save_strategy", "no"]
    argv = pretraining_arguments(clips, quantizer, tmp_path, *more)
    argv[:2] = ["--train_file", str(clips / "0*.wav"), str(clips / "1*.wav")]
    pretrain.main(argv)
    assert sum(index >= 10 for index, _ in drawn) == 12 and len(drawn) == len(set(drawn)) == 16


def test_bfloat16_trains_on_the_codes_of_float32(clips, quantizer, tmp_path):
    more = ["--eval_strategy", "no", "--save_strategy", "no"]
    for name, precision in (("float32", []), ("bfloat16", ["--bf16", "True"])):
        pretrain.main(pretraining_arguments(clips, quantizer, tmp_path / name, *more, *precision))
    for name in ("code_perplexity", "code_usage"):
        assert losses(tmp_path / "bfloat16", name) == losses(tmp_path / "float32", name)
    assert losses(tmp_path / "bfloat16") == pytest.approx(losses(tmp_path / "float32"), rel=0.02)


@pytest.mark.slow
def test_compiled_training_gives_the_same_losses(clips, quantizer, tmp_path):
    more = ["--eval_strategy", "no", "--save_strategy", "no"]
    pretrain.main(pretraining_arguments(clips, quantizer, tmp_path / "eager", *more))
    pretrain.main(pretraining_arguments(clips, quantizer, tmp_path / "compiled", *more, "--torch_compile", "True"))
    assert losses(tmp_path / "compiled") == pytest.approx(losses(tmp_path / "eager"), abs=1e-4)


def test_a_quantizer_that_does_not_fit_is_refused(clips, quantizer, pretrained, tmp_path):
    with pytest.raises(ValueError, match="must lead to a quantizer, found none"):
        pretrain.main(pretraining_arguments(clips, tmp_path / "missing", tmp_path / "run"))
    with pytest.raises(ValueError, match="must hold a quantizer, found a model of type 'hear'"):
        pretrain.main(pretraining_arguments(clips, pretrained, tmp_path / "run"))
    HEARQuantizer(HEARQuantizerConfig(sampling_rate=32_000, hidden_size=16)).save_pretrained(tmp_path / "fast")
    more = ["--model_name_or_path", str(pretrained)]
    with pytest.raises(ValueError, match="`codebook_size` must be the quantizer's, 1024, found: 12"):
        pretrain.main(pretraining_arguments(clips, tmp_path / "fast", tmp_path / "run", *more))
    assert not (tmp_path / "run").exists()


def test_training_goes_on_from_a_checkpoint(clips, quantizer, pretrained, tmp_path):
    arguments = quantizer_arguments(clips, tmp_path / "quantizer", "--model_name_or_path", str(quantizer))
    train_quantizer.main(arguments)
    assert AutoModelForPreTraining.from_pretrained(tmp_path / "quantizer").vector_quantizer.num_updates == 8
    pretrain.main(
        pretraining_arguments(
            clips, quantizer, tmp_path / "run", "--model_name_or_path", str(pretrained), "--learning_rate", "0"
        )
    )
    before, after = (HEARForPreTraining.from_pretrained(folder) for folder in (pretrained, tmp_path / "run"))
    assert all(torch.equal(a, b) for a, b in zip(before.parameters(), after.parameters(), strict=True))
