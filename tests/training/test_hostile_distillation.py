"""examples/distill.py on teachers that cannot be read and clips that cannot be used, killed, and in two processes."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from safetensors.torch import load_file, save_file
from test_distillation import NO_SAVES, SAMPLING_RATE, arguments, load, losses, save_wav2vec2_classifier
from transformers import BertConfig, BertModel, Wav2Vec2FeatureExtractor

import distill
from helpers import write_tone


@pytest.fixture
def teacher(tmp_path):
    """The folder of a classifier of five labels whose files a test may spoil."""
    save_wav2vec2_classifier(tmp_path / "teacher")
    return tmp_path / "teacher"


def edit(file: Path, **changes) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


@pytest.mark.parametrize("rate", [None, 0, "fast"])
def test_a_teacher_whose_rate_cannot_be_read_is_refused(teacher, rate):
    edit(teacher / "preprocessor_config.json", sampling_rate=rate)
    with pytest.raises(ValueError, match=f"must state the rate of its waveforms, found .*sampling_rate={rate}"):
        load(teacher)


def test_a_teacher_whose_labels_cannot_be_read_is_refused(teacher):
    edit(teacher / "config.json", id2label={str(i): f"{i % 3}" for i in range(5)})
    with pytest.raises(ValueError, match="must name each of its 5 labels differently, found 3 names"):
        load(teacher)
    edit(teacher / "config.json", id2label={"0": "one"}, label2id={"one": 0})
    with pytest.raises(ValueError, match="must have weights that fit its config.json"):
        load(teacher)


def test_a_teacher_whose_outputs_cannot_be_read_is_refused(teacher, tmp_path):
    BertModel(
        BertConfig(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16)
    ).save_pretrained(tmp_path / "text")
    Wav2Vec2FeatureExtractor().save_pretrained(tmp_path / "text")
    with pytest.raises(
        ValueError, match="must read waveforms and return hidden states, found that BertModel does not"
    ):
        load(tmp_path / "text")
    weights = load_file(teacher / "model.safetensors")
    weights["classifier.bias"].fill_(torch.nan)
    save_file(weights, teacher / "model.safetensors", metadata={"format": "pt"})
    (broken,) = load(teacher)
    waveforms = [np.random.default_rng(0).standard_normal(4_000).astype(np.float32)]
    with pytest.raises(ValueError, match="The teacher teacher must give finite outputs, found NaN or infinity"):
        broken.measure([broken.read_clips(waveforms)])


@pytest.mark.parametrize("spoil", ["gone", "config.json", "model.safetensors"])
def test_a_teacher_that_is_gone_or_broken_is_refused_by_its_name(teacher, spoil):
    name = teacher if spoil != "gone" else teacher.with_name("elsewhere")
    if spoil != "gone":
        (teacher / spoil).write_bytes(b"{")
    with pytest.raises(ValueError, match=f"The teacher {name} must (be a model of|have weights that fit)"):
        load(name)


def test_a_pool_of_one_short_clip_and_teachers_of_unlike_lengths_train(sounds, words, teacher, tmp_path):
    """0.1 s, less than the step of the first teacher, and than the first frame of the second is from the start."""
    write_tone(tmp_path / "pool" / "only.wav", 440, 0.1)
    argv = arguments(tmp_path / "pool", tmp_path / "run", [sounds, words, teacher], *NO_SAVES)
    distill.main(argv)
    for name in ("loss", "label_loss", "frame_embedding_loss_words", "frame_embedding_loss_teacher"):
        assert len(losses(tmp_path / "run", name)) == 4 and np.isfinite(losses(tmp_path / "run", name)).all()


def test_broken_silent_and_short_clips_are_skipped_and_counted(clips, sounds, tmp_path, caplog):
    pool = tmp_path / "pool"
    pool.mkdir()
    for file in clips.iterdir():
        (pool / file.name).write_bytes(file.read_bytes())
    (pool / "broken.wav").write_bytes(b"RIFF, but no more")
    soundfile.write(pool / "silent.wav", np.zeros(8_000), SAMPLING_RATE)
    soundfile.write(pool / "short.wav", 0.1 * np.ones(300), SAMPLING_RATE)
    more = ["--validation_share", "0", "--max_steps", "8", *NO_SAVES]
    argv = arguments(pool, tmp_path / "run", [sounds], *more)
    distill.main([*argv, "--max_unusable_share", "0.2"])
    assert len(losses(tmp_path / "run")) == 8 and np.isfinite(losses(tmp_path / "run")).all()
    assert "3 unusable clips were skipped" in caplog.text
    with pytest.raises(ValueError, match="At most 10% of the clips may be unusable, found 2 of"):
        distill.main(argv)


def test_a_crop_of_silence_within_a_clip_gives_finite_losses(sounds, words, tmp_path):
    click = np.zeros(3 * SAMPLING_RATE)
    click[0] = 0.5
    for i in range(4):
        (tmp_path / "pool").mkdir(exist_ok=True)
        soundfile.write(tmp_path / "pool" / f"{i}.wav", np.roll(click, 97 * i), SAMPLING_RATE)
    distill.main(arguments(tmp_path / "pool", tmp_path / "run", [sounds, words], *NO_SAVES))
    assert np.isfinite(losses(tmp_path / "run")).all() and len(losses(tmp_path / "run")) == 4


def command(argv: list[str], *before: str) -> tuple[list[str], dict[str, str]]:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    return [sys.executable, *before, str(Path(distill.__file__)), *argv], environment


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_run_that_is_killed_goes_on_to_the_same_losses_and_weights(clips, sounds, words, tmp_path):
    more = ["--max_steps", "40", "--save_steps", "5", "--eval_strategy", "no", "--ema_decay", "0.9"]
    more += ["--source_weights", "1", "2", "--random_shift_seconds", "0.1"]
    more += ["--train_file", str(clips / "0*.wav"), str(clips / "1*.wav")]
    distill.main(arguments(clips, tmp_path / "whole", [sounds, words], *more)[2:])
    argv, environment = command(arguments(clips, tmp_path / "run", [sounds, words], *more)[2:])
    rng, num_kills = random.Random(0), 0
    while True:
        seen = set((tmp_path / "run").glob("checkpoint-*"))
        run = subprocess.Popen(argv, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        while run.poll() is None and set((tmp_path / "run").glob("checkpoint-*")) <= seen:
            time.sleep(0.001)
        time.sleep(rng.uniform(0, 0.1))
        if run.poll() is None and num_kills < 3:
            run.send_signal(signal.SIGKILL)
            num_kills += 1
            run.wait()
            continue
        _, errors = run.communicate()
        assert run.returncode == 0, errors
        break
    assert num_kills == 3
    assert losses(tmp_path / "run") == pytest.approx(losses(tmp_path / "whole"), abs=1e-5)
    expected = load_file(tmp_path / "whole" / "model.safetensors")
    for name, tensor in load_file(tmp_path / "run" / "model.safetensors").items():
        torch.testing.assert_close(tensor, expected[name], rtol=0, atol=1e-5, msg=name)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_two_processes_give_the_losses_of_one(clips, sounds, words, tmp_path):
    """Without mixtures and labels: a batch's clips are mixed, and batch norm measures, in each process by itself."""
    more = ["--train_file", str(clips / "0*.wav"), str(clips / "1*.wav"), "--source_weights", "1", "2"]
    more += ["--mixture_share", "0", "--random_gain_db", "0", "--label_loss_weight", "0", "--ema_decay", "0.5"]
    more += ["--learning_rate", "1e-2", "--save_strategy", "no", "--validation_share", "0.25"]
    distill.main(arguments(clips, tmp_path / "one", [sounds, words], *more)[2:])
    more += ["--per_device_train_batch_size", "2", "--per_device_eval_batch_size", "1"]
    # By its name for GPUs alone, but with `--use_cpu` on gloo: otherwise Accelerate starts one process on a CPU.
    launch = "-m accelerate.commands.launch --multi_gpu --num_processes 2 --num_machines 1 --mixed_precision no "
    launch += "--dynamo_backend no --main_process_port 0"
    argv, environment = command(arguments(clips, tmp_path / "two", [sounds, words], *more)[2:], *launch.split())
    result = subprocess.run(argv, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    for name in ("loss", "frame_embedding_loss_words", "clip_embedding_loss_sounds", "eval_clip_embedding_loss_words"):
        one, two = losses(tmp_path / "one", name), losses(tmp_path / "two", name)
        assert two == pytest.approx(one, abs=1e-3) and len(one) > 0, name
