"""What a run saved survives a full disk and a kill: the same command goes on to the weights of an undisturbed run."""

import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from test_finetune import QUICK
from transformers import Trainer

import finetune
from hear_hf.training.records import in_use
from helpers import small_model, write_tone

NUM_EPOCHS = 5


@pytest.fixture(scope="module")
def tones(tmp_path_factory):
    """Two classes of six clips."""
    folder = tmp_path_factory.mktemp("clips") / "tones"
    for label, frequency in (("low", 200), ("high", 5000)):
        for i in range(6):
            write_tone(folder / label / f"{i}.wav", frequency, 0.2 + 0.05 * i, seed=i)
    return folder


def arguments_of(data_dir: Path) -> list[str]:
    """Two steps an epoch, and a checkpoint after each."""
    return [*QUICK, "--data_dir", str(data_dir), "--num_train_epochs", str(NUM_EPOCHS),
            "--mixup_alpha", "0.3", "--per_device_train_batch_size", "5", "--save_total_limit", "9",
            "--load_best_model_at_end", "False"]  # fmt: skip


@pytest.fixture
def arguments(tones):
    return arguments_of(tones)


@pytest.fixture(scope="module")
def undisturbed(tones, tmp_path_factory):
    """The weights that a run reaches whose saves all succeed."""
    folder = tmp_path_factory.mktemp("undisturbed")
    finetune.main([*arguments_of(tones), "--output_dir", str(folder)])
    return load_file(folder / "model.safetensors")


@pytest.fixture(autouse=True)
def no_reports(monkeypatch):
    """No test here reads the card or the plots."""
    monkeypatch.setattr(finetune, "report_classifier", lambda *args: None)


def assert_same_weights(folder: Path, expected: dict[str, torch.Tensor]) -> None:
    found = load_file(folder / "model.safetensors")
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, rtol=0, atol=1e-6, msg=name)


@pytest.mark.parametrize("limit", [20_000, 200_000], ids=["at the weights", "at the optimizer"])
def test_a_disk_that_fills_up_while_saving_costs_no_earlier_checkpoint(
    arguments, undisturbed, tmp_path, monkeypatch, limit
):
    output_dir, save = tmp_path / "run", Trainer._save_checkpoint
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)

    def save_on_a_full_disk(self, *args, **kwargs):
        if self.state.epoch > 1:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limits[1]))  # no file may grow beyond that
        save(self, *args, **kwargs)

    monkeypatch.setattr(Trainer, "_save_checkpoint", save_on_a_full_disk)
    try:
        with pytest.raises(Exception, match="(?i)file too large|write|failed"):
            finetune.main([*arguments, "--output_dir", str(output_dir)])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    monkeypatch.undo()
    assert len(list(output_dir.glob("checkpoint-*"))) == 2

    finetune.main([*arguments, "--output_dir", str(output_dir)])
    assert_same_weights(output_dir, undisturbed)


def test_data_that_disappear_end_the_run_with_the_file_s_name_and_come_back(tones, undisturbed, tmp_path, monkeypatch):
    data, away, save = shutil.copytree(tones, tmp_path / "tones"), tmp_path / "away", Trainer._save_checkpoint
    arguments = arguments_of(data)

    def save_and_lose_the_data(self, *args, **kwargs):
        save(self, *args, **kwargs)
        if data.exists():
            data.rename(away)

    monkeypatch.setattr(Trainer, "_save_checkpoint", save_and_lose_the_data)
    with pytest.raises(FileNotFoundError, match=r"tones/\w+/\d\.wav"):
        finetune.main([*arguments, "--output_dir", str(tmp_path / "run")])
    monkeypatch.undo()
    away.rename(data)
    finetune.main([*arguments, "--output_dir", str(tmp_path / "run")])
    assert_same_weights(tmp_path / "run", undisturbed)


BY_STEPS = ["--num_train_epochs", "3", "--save_strategy", "steps", "--save_steps", "1", "--mixup_alpha", "0"]


@pytest.fixture(scope="module")
def undisturbed_by_steps(tones, tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed")
    finetune.main([*arguments_of(tones), *BY_STEPS, "--output_dir", str(folder)])
    return load_file(folder / "model.safetensors")


@pytest.mark.parametrize("last_save", [4, 6])
def test_a_save_by_steps_keeps_what_the_end_of_its_epoch_brings(
    arguments, undisturbed_by_steps, tmp_path, monkeypatch, last_save
):
    """The batch-norm calibration and the evaluation after steps 4 and 6, where the run is killed after a save."""
    arguments, save = [*arguments, *BY_STEPS], Trainer._save_checkpoint

    def save_and_die(self, *args, **kwargs):
        save(self, *args, **kwargs)
        if self.state.global_step == last_save:
            raise KeyboardInterrupt

    monkeypatch.setattr(Trainer, "_save_checkpoint", save_and_die)
    with pytest.raises(KeyboardInterrupt):
        finetune.main([*arguments, "--output_dir", str(tmp_path / "run")])
    monkeypatch.undo()
    finetune.main([*arguments, "--output_dir", str(tmp_path / "run")])
    assert_same_weights(tmp_path / "run", undisturbed_by_steps)


@pytest.mark.slow
@pytest.mark.timeout(1_800)
def test_a_run_killed_at_random_moments_ends_with_the_weights_of_one_that_was_not(arguments, undisturbed, tmp_path):
    script, output_dir = str(Path(finetune.__file__)), tmp_path / "run"
    command = [sys.executable, script, *arguments, "--output_dir", str(output_dir)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    rng, num_kills = random.Random(0), 0
    while True:
        run = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        seen = len(list(output_dir.glob("checkpoint-*")))
        while run.poll() is None and len(list(output_dir.glob("checkpoint-*"))) == seen:
            time.sleep(0.001)
        time.sleep(rng.uniform(0, 0.15))  # a save takes some 50 ms
        if run.poll() is None and num_kills < 8:
            run.send_signal(signal.SIGKILL)
            num_kills += 1
            run.wait()
            continue
        _, errors = run.communicate()
        assert run.returncode == 0, errors
        break
    assert num_kills >= 3
    assert_same_weights(output_dir, undisturbed)


@pytest.mark.parametrize("change", ["labels", "data_dir", "learning_rate", "clips", "content_of_clips"])
def test_a_folder_with_checkpoints_of_another_run_is_refused(arguments, tones, tmp_path, change):
    words = [*arguments, "--num_train_epochs", "1", "--output_dir", str(tmp_path / "run")]
    data = shutil.copytree(tones, tmp_path / "data")
    words[words.index("--data_dir") + 1] = str(data)
    finetune.main(words)
    before = (tmp_path / "run" / "model.safetensors").read_bytes()
    if change == "labels":
        (data / "low").rename(data / "deep")
    elif change == "data_dir":
        words[words.index("--data_dir") + 1] = str(data.rename(tmp_path / "other"))
    elif change == "learning_rate":
        words[words.index("--learning_rate") + 1] = "1e-5"
    elif change == "content_of_clips":
        write_tone(data / "low" / "0.wav", 300, 0.2)
    else:
        for i in range(6, 9):
            write_tone(data / "low" / f"{i}.wav", 200, seed=i)
    with pytest.raises(ValueError, match=f"found those of another in .*run: .*{change} was .*, is now .*--output_dir"):
        finetune.main(words)
    assert (tmp_path / "run" / "model.safetensors").read_bytes() == before


def test_a_folder_of_a_run_without_a_record_is_refused_to_other_labels(arguments, tones, tmp_path):
    words = [*arguments, "--num_train_epochs", "1", "--output_dir", str(tmp_path / "run")]
    finetune.main(words)
    (tmp_path / "run" / "run_record.json").unlink()
    data = shutil.copytree(tones, tmp_path / "data")
    (data / "low").rename(data / "deep")
    words[words.index("--data_dir") + 1] = str(data)
    with pytest.raises(ValueError, match="labels was .*low.*, is now .*deep"):
        finetune.main(words)


def test_a_model_without_checkpoints_is_not_replaced_by_another_run_s(arguments, tones, tmp_path):
    words = [*arguments, "--num_train_epochs", "1", "--save_strategy", "no", "--output_dir", str(tmp_path / "run")]
    finetune.main(words)
    finetune.main(words)  # the same run may start over
    before = (tmp_path / "run" / "model.safetensors").read_bytes()
    words[words.index("--data_dir") + 1] = str(shutil.copytree(tones, tmp_path / "other"))
    with pytest.raises(ValueError, match="found those of another in .*run: data_dir was .*tones, is now .*other"):
        finetune.main(words)
    assert (tmp_path / "run" / "model.safetensors").read_bytes() == before


def test_a_pretrained_model_is_not_replaced_by_one_of_other_labels(arguments, tmp_path):
    small_model().save_pretrained(tmp_path / "run")
    before = (tmp_path / "run" / "model.safetensors").read_bytes()
    with pytest.raises(ValueError, match="found those of another in .*run: labels was .*, is now .*high.*low"):
        finetune.main([*arguments, "--output_dir", str(tmp_path / "run")])
    assert (tmp_path / "run" / "model.safetensors").read_bytes() == before


def test_two_runs_at_once_in_one_folder_are_refused(arguments, tmp_path):
    with in_use(tmp_path / "run"), pytest.raises(ValueError, match="found another at work in .*run"):
        finetune.main([*arguments, "--output_dir", str(tmp_path / "run")])
    assert not list((tmp_path / "run").glob("*.json"))


def test_a_run_may_go_on_for_longer(arguments, tmp_path):
    finetune.main([*arguments, "--num_train_epochs", "1", "--output_dir", str(tmp_path / "run")])
    finetune.main([*arguments, "--num_train_epochs", "2", "--output_dir", str(tmp_path / "run")])
    assert (tmp_path / "run" / "checkpoint-4").is_dir()
