"""Each command of `examples/`, copied alone into an empty folder: it needs the installed package and no sibling."""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import soundfile

from helpers import noise, write_tone

EXAMPLES = Path(__file__).parents[2] / "examples"
COMMANDS = sorted(path.name for path in EXAMPLES.glob("*.py"))
TINY = (
    "hidden_size=16,intermediate_size=24,num_hidden_layers=1,num_attention_heads=2,window_length=20,window_overlap=4,"
    "hidden_dropout=0.0,activation_dropout=0.0,attention_dropout=0.0"
)
QUANTIZER = f"{TINY},codebook_size=12,codebook_dim=4,decoder_hidden_size=16,decoder_intermediate_size=24," + (
    "decoder_num_hidden_layers=1,decoder_num_attention_heads=2"
)
MODEL = f"{TINY},task_hidden_size=8,task_num_attention_heads=2,task_intermediate_size=16,codebook_size=12"
TRAINING = "--max_steps 4 --per_device_train_batch_size 4 --use_cpu True --report_to none --disable_tqdm True"

# Where no synthesizer or no package of metrics is installed, the help alone.
WORDS = "words --hours 0.001" if shutil.which("espeak-ng") else "--help"
FRAMES = "--data_dir {} --soundscapes --num_train_soundscapes 8 --num_eval_soundscapes 4 --model_name_or_path base"
FRAMES = FRAMES if importlib.util.find_spec("sed_scores_eval") else "--help"

# What a user does, in this order: {} is the folder of labelled clips.
JOURNEY = f"""
free_sounds.py {WORDS}
train_quantizer.py --data_dir {{}} --output_dir quantizer --config_overrides {QUANTIZER} {TRAINING}
pretrain.py --data_dir {{}} --quantizer_name_or_path quantizer --output_dir base --config_overrides {MODEL} {TRAINING}
distill.py --data_dir {{}} --teacher_name_or_path base --output_dir distilled --config_overrides {MODEL} {TRAINING}
precompute_teacher.py --data_dir {{}} --teacher_name_or_path base --output_dir states
probe.py --data_dir {{}} --model_name_or_path base --output_dir probe
finetune.py --data_dir {{}} --model_name_or_path base --output_dir classifier {TRAINING}
finetune_frames.py {FRAMES} {TRAINING}
teach.py --data_dir {{}} --model_name_or_path classifier --output_dir taught
predict.py classifier clip.wav
embed.py --data_dir {{}} --model_name_or_path classifier --output_dir index
search.py index --like clip.wav --page hits.html
stream.py taught clip.wav --window 0.5 --hop 0.25
export_onnx.py taught exported
run_onnx.py exported/onnx/model.onnx clip.wav
score_onnx.py --data_dir {{}} --model_name_or_path taught --onnx_dir exported
push_to_hub.py taught me/taught --dry_run
push_dataset.py {{}} me/clips --dry_run
push_space.py me/taught me/demo --space_dir {EXAMPLES / "space"} --dry_run
"""


@pytest.fixture
def folder(tmp_path):
    """A copy of each command in a folder of its own that holds nothing else."""
    for command in COMMANDS:
        (tmp_path / command).mkdir()
        shutil.copy(EXAMPLES / command, tmp_path / command / command)
    return tmp_path


def run(*words, cwd):
    environment = os.environ | {"PYTHONPATH": os.environ.get("PYTHONPATH", "")}
    return subprocess.run([sys.executable, *words], cwd=cwd, env=environment, capture_output=True, text=True)


@pytest.mark.slow
def test_each_copy_does_its_work_on_what_the_others_made(folder, tmp_path):
    for i, (label, frequency) in enumerate([("low", 200), ("high", 3000)] * 8):
        write_tone(tmp_path / "clips" / label / f"{i}.wav", frequency, 0.5, seed=i)
    work = tmp_path / "work"
    work.mkdir()
    soundfile.write(work / "clip.wav", noise(16_000).numpy(), 16_000)
    done = []
    for line in JOURNEY.strip().splitlines():
        command, *arguments = line.format(*[tmp_path / "clips"] * line.count("{}")).split()
        result = run(str(folder / command / command), *arguments, cwd=work)
        assert result.returncode == 0, (command, result.stdout, result.stderr)
        done.append(command)
    assert sorted(done) == COMMANDS
    assert json.loads((work / "probe" / "probe.json").read_text())["results"]
