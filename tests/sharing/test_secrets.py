"""Tokens and folders of this machine, which must reach neither a file that a run writes nor the Hub."""

import pytest
import torch

import finetune
import push_dataset
import push_space
import push_to_hub
from hear_hf.training.classification import FineTuningArguments
from helpers import write_tone
from local_hub import connect

TINY = (
    "hidden_size=32,num_hidden_layers=1,intermediate_size=32,task_hidden_size=32,task_intermediate_size=32,"
    "classifier_proj_size=16"
)


@pytest.fixture
def command(tmp_path):
    """A short run of `finetune.py` that publishes itself."""
    for label, frequency in (("low", 200), ("high", 5000)):
        for i in range(4):
            write_tone(tmp_path / "tones" / label / f"{i}.wav", frequency, 0.2, seed=i)
    words = f"--use_cpu True --disable_tqdm True --num_train_epochs 1 --data_dir {tmp_path}/tones "
    words += f"--output_dir {tmp_path}/run --config_overrides {TINY} --push_to_hub True --hub_model_id alice/hear"
    return words.split()


def test_a_run_is_published_in_one_commit_through_the_checks_and_without_a_pickle(command, hub, loads_elsewhere):
    finetune.main(command)
    repository = hub.repositories["models", "alice/hear"]
    assert len(repository.commits) == 2 and len(loads_elsewhere) == 2  # before the upload and after it
    assert {"config.json", "README.md", "model.safetensors", "training_curve.png"} <= set(repository.main.files)
    assert not [name for name in repository.main.files if name.endswith((".bin", ".pt", ".pth"))]


def test_a_run_that_cannot_be_published_says_so_before_its_clips_are_read(command, hub, monkeypatch, tmp_path):
    connect(hub, monkeypatch, tmp_path, token=None)
    monkeypatch.setattr(finetune, "load_labelled_audio", None)
    with pytest.raises(SystemExit, match="needs a token, found none"):
        finetune.main(command)
    assert not list(tmp_path.glob("run/*"))


def test_no_file_of_a_run_holds_a_token(command, tmp_path):
    with pytest.raises(ValueError, match="`hub_token` must not be given") as refusal:
        finetune.main([*command, "--hub_token", "hf_secret"])
    assert "hf_secret" not in str(refusal.value)
    arguments = FineTuningArguments(output_dir=str(tmp_path), use_cpu=True)
    arguments.set_push_to_hub("alice/hear", token="hf_secret", strategy="end")
    torch.save(arguments, tmp_path / "training_args.bin")
    assert b"hf_secret" not in (tmp_path / "training_args.bin").read_bytes()


@pytest.mark.parametrize("command", [push_to_hub, push_dataset, push_space])
def test_no_command_takes_a_token_which_every_user_of_the_machine_could_read(command, capsys):
    with pytest.raises(SystemExit):
        command.main(["folder", "alice/hear", "--token", "hf_secret"])
    assert "unknown arguments: --token" in capsys.readouterr().err
