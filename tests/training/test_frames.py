"""`examples/finetune_frames.py` on tiny models and tones, end to end, and its parts against plain arithmetic."""

import json

import numpy as np
import pytest
import soundfile
import torch
from torch.nn.functional import binary_cross_entropy_with_logits
from transformers import AutoModelForAudioFrameClassification

from hear_hf import HEARConfig, HEARFeatureExtractor, HEARForAudioFrameClassification
from hear_hf.data.annotated import AnnotatedDataArguments, load_annotated_audio
from hear_hf.data.soundscapes import SoundscapeArguments
from hear_hf.training.classification import ModelArguments
from hear_hf.training.frames import (
    FrameTrainingArguments,
    build_frame_trainer,
    collate_frames,
    frame_loss,
    load_frame_model,
    split_frames,
)

pytest.importorskip("sed_scores_eval", reason="the metrics need the extra `events`")

import finetune_frames

RATE = 16_000
TINY = "hidden_size=32,num_hidden_layers=1,intermediate_size=64,task_hidden_size=32,task_intermediate_size=64"
QUICK = ["--disable_tqdm", "True", "--config_overrides", TINY, "--learning_rate", "3e-3", "--use_cpu", "True"]


@pytest.fixture
def recordings(tmp_path):
    """Sixteen recordings of 2 s with a tone in each, of two labels, and the label tracks beside them."""
    folder = tmp_path / "recordings"
    folder.mkdir()
    for index in range(16):
        rng = np.random.default_rng(index)
        samples, label = 0.01 * rng.normal(size=2 * RATE), ("low", "high")[index % 2]
        first = int(rng.integers(RATE))
        time = np.arange(RATE // 2) / RATE
        samples[first : first + RATE // 2] += 0.3 * np.sin(2 * np.pi * (300 if label == "low" else 3000) * time)
        soundfile.write(folder / f"{index}.wav", samples, RATE)
        line = f"{first / RATE}\t{first / RATE + 0.5}\t{label}\n"
        (folder / f"{index}.txt").write_text(line, encoding="utf-8")
    return folder


def train(recordings, tmp_path, *options, epochs=12):
    output = tmp_path / "run"
    data = ["--data_dir", str(recordings), "--output_dir", str(output), "--validation_share", "0.25"]
    schedule = ["--num_train_epochs", str(epochs), "--per_device_train_batch_size", "4"]
    return finetune_frames.main([*data, *QUICK, *schedule, *options]), output


@pytest.mark.slow
@pytest.mark.parametrize("labels", [(), ("--weak_labels",)], ids=["strong", "weak"])
def test_it_learns_when_tones_sound(recordings, tmp_path, labels, capsys):
    metrics, output = train(recordings, tmp_path, *labels, epochs=40)
    assert metrics["validation_segment_f1"] > 0.8
    assert labels or metrics["validation_event_f1"] > 0.8
    assert f"Next: python examples/predict.py {output} CLIP.wav" in capsys.readouterr().out
    model = AutoModelForAudioFrameClassification.from_pretrained(output)
    assert len(model.config.event_thresholds) == 2 and model.config.event_median_frames % 2 == 1


def test_a_run_leaves_a_model_its_card_and_its_plots(recordings, tmp_path):
    metrics, output = train(recordings, tmp_path, epochs=1)
    assert set(metrics) == {"validation_event_f1", "validation_segment_f1", "validation_psds"}
    for name in ("events.png", "training_curve.png", "run_record.json", "validation_results.json"):
        assert (output / name).stat().st_size > 0
    assert (output / "per_label.txt").read_text(encoding="utf-8").count("\n") == 4
    card = (output / "README.md").read_text(encoding="utf-8")
    assert "AutoModelForAudioFrameClassification" in card and "2 kinds of sound" in card and "Event-based F1" in card
    assert len(json.loads((output / "config.json").read_text())["event_thresholds"]) == 2


def test_clips_with_labels_alone_are_scored_by_them(recordings, tmp_path):
    rows = "".join(f"{index}.wav,{('low', 'high')[index % 2]}\n" for index in range(16))
    (recordings / "clips.csv").write_text("audio,label\n" + rows, encoding="utf-8")
    options = ["--train_file", str(recordings / "clips.csv"), "--weak_labels", "--num_train_epochs", "1"]
    metrics = finetune_frames.main([*options, "--output_dir", str(tmp_path / "run"), *QUICK])
    assert set(metrics) == {"validation_mean_average_precision", "validation_macro_f1"}


def test_a_batch_is_padded_with_labels_that_are_not_scored():
    clips = [{"input_values": np.zeros(n, np.float32), "labels": np.ones((m, 2))} for n, m in ((3200, 10), (1600, 5))]
    batch = collate_frames(clips, HEARFeatureExtractor())
    assert batch["labels"].shape == (2, 10, 2)
    assert (batch["labels"][1] == -100).sum() == 10 and (batch["labels"] == 1).sum() == 30
    weak = [{**clip, "labels": np.ones(2)} for clip in clips]
    assert collate_frames(weak, HEARFeatureExtractor())["labels"].shape == (2, 2)


def test_the_loss_of_two_halves_of_a_step_is_that_of_the_whole():
    logits, labels = torch.randn(4, 6, 2), torch.randint(0, 2, (4, 6, 2)).float()
    labels[2, 3:] = -100
    scored = labels != -100
    whole = frame_loss({"logits": logits}, labels, scored.sum())
    halves = [frame_loss({"logits": logits[i : i + 2]}, labels[i : i + 2], scored.sum()) for i in (0, 2)]
    torch.testing.assert_close(sum(halves), whole)
    torch.testing.assert_close(whole, binary_cross_entropy_with_logits(logits[scored], labels[scored]))


def test_recordings_are_evaluated_in_their_order_however_they_are_sampled(recordings, tmp_path):
    for index in range(0, 16, 3):  # of unlike lengths
        samples, _ = soundfile.read(recordings / f"{index}.wav")
        soundfile.write(recordings / f"{index}.wav", np.tile(samples, 2), RATE)
    dataset = load_annotated_audio(AnnotatedDataArguments(data_dir=str(recordings)), SoundscapeArguments())
    options = {"train_sampling_strategy": "group_by_length", "per_device_eval_batch_size": 2, "use_cpu": True}
    arguments = FrameTrainingArguments(str(tmp_path / "run"), **options)
    trainer = build_frame_trainer(dataset, arguments, ModelArguments(config_overrides=TINY))
    found = [len(rows) for rows in trainer.probabilities(dataset["train"])]
    lengths = [len(soundfile.read(row["audio"]["path"])[0]) // 320 for row in dataset["train"]]
    assert found == lengths and len(set(lengths)) == 2


def test_predictions_of_recordings_are_cut_to_their_own_frames():
    found = split_frames((np.ones((2, 7, 3)), np.ones((2, 3)), np.array([7, 4])))
    assert [len(rows) for rows in found] == [7, 4]


def test_a_checkpoint_s_thresholds_are_not_kept_for_other_labels(tmp_path):
    config = HEARConfig(num_labels=3, event_thresholds=[0.1, 0.2, 0.3], event_median_frames=5)
    config.update_from_string(TINY)
    HEARForAudioFrameClassification(config).save_pretrained(tmp_path)
    HEARFeatureExtractor().save_pretrained(tmp_path)
    _, model = load_frame_model(ModelArguments(str(tmp_path)), ["a", "b"], "max")
    assert model.config.event_thresholds is None and model.config.event_median_frames == 1
    assert model.config.frame_pooling == "max" and model.frame_classifier.weight.shape == (2, 32)
