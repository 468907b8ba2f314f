"""`distill.py --frame_labels` with tiny random teachers: labels over time against those of each window alone."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from test_distillation import MODEL, NO_SAVES, arguments, load, losses, save_wav2vec2_classifier
from test_stored_teachers import STILL, from_tables, storing
from transformers import AutoModelForAudioFrameClassification

import distill
import precompute_teacher
import predict
from hear_hf import HEARConfig, HEARFeatureExtractor, HEARForAudioFrameClassification
from hear_hf.training.distillation import frame_label_loss
from hear_hf.training.distillation_teachers import windows_over
from helpers import SOUND_LABELS, noise, ragged_batch

FRAMES = ["--frame_labels"]


@pytest.fixture(scope="module")
def heard(tmp_path_factory):
    """The folder of a tiny teacher that says what is heard when, and is sure of it."""
    folder = tmp_path_factory.mktemp("teachers") / "heard"
    torch.manual_seed(4)
    config = HEARConfig(id2label=SOUND_LABELS, label2id={name: i for i, name in SOUND_LABELS.items()})
    config.update_from_string(MODEL)
    model = HEARForAudioFrameClassification(config)
    torch.nn.init.normal_(model.frame_classifier.weight, std=3)
    torch.nn.init.zeros_(model.frame_classifier.bias)
    model.save_pretrained(folder)
    HEARFeatureExtractor().save_pretrained(folder)
    return folder


def still(clips: Path, output_dir: Path, teachers: list[Path], *more: str) -> list[str]:
    return arguments(clips, output_dir, teachers, *FRAMES, *STILL, *more)


def test_a_window_lies_around_the_middle_of_each_hop_as_far_as_its_clip_reaches():
    waveform, mask = ragged_batch([torch.arange(1.0, 31), torch.arange(101.0, 108)])
    windows, masks, counts = windows_over(waveform, mask.sum(1), hop=10)
    assert counts.tolist() == [3, 1] and windows.shape == masks.shape == (4, 40)
    found = [row[valid].tolist() for row, valid in zip(windows, masks, strict=True)]
    spans = [(1, 26), (1, 31), (6, 31), (101, 108)]
    assert found == [list(map(float, range(*span))) for span in spans]


def test_a_teacher_of_whole_clips_says_what_is_in_each_window(sounds):
    (teacher,) = load(sounds)
    clips = [noise(15_000), noise(7_000, seed=1)]
    waveform, mask = ragged_batch(clips)
    found = teacher.labels_over_time(teacher(waveform, mask), waveform, mask, window_seconds=0.4)
    assert found.num_frames[:, 0].tolist() == [10, 5] and found.step[0] == pytest.approx(0.1)
    assert found.first_center[0] == pytest.approx(0.05)
    for i, clip in enumerate(clips):
        for k in range(int(found.num_frames[i])):
            part = clip[max(1_600 * k - 2_400, 0) : 1_600 * k + 4_000][None]
            expected = teacher(part, torch.ones_like(part)).logits[0].sigmoid()
            torch.testing.assert_close(found.frames[i, k], expected, rtol=0, atol=1e-4)
    _, is_covered = found.at_encoder_frames(47)
    assert is_covered[0].all() and is_covered[1].sum() == 25  # to the end of its last hop, at 0.5 s


def test_a_teacher_of_frames_gives_its_own(heard):
    (teacher,) = load(heard)
    waveform, mask = ragged_batch([noise(15_000), noise(7_000, seed=1)])
    outputs = teacher(waveform, mask)
    found = teacher.labels_over_time(outputs, waveform, mask, window_seconds=1.0)
    model = AutoModelForAudioFrameClassification.from_pretrained(heard).eval()
    expected = model(waveform, attention_mask=mask)
    for i, count in enumerate(found.num_frames[:, 0].tolist()):
        theirs = expected.logits[i, :count].sigmoid()
        torch.testing.assert_close(found.frames[i, :count], theirs, rtol=0, atol=1e-5)
    torch.testing.assert_close(outputs.logits, expected.clip_logits, rtol=0, atol=1e-5)
    assert teacher.num_labels == 5 and teacher.is_multi_label


def test_the_loss_is_the_mean_over_each_clip_s_own_frames():
    logits, probabilities = torch.randn(2, 6, 3), torch.rand(2, 6, 3)
    scored = torch.tensor([[True] * 6, [True] * 2 + [False] * 4])
    entropy = -(probabilities * logits.sigmoid().log() + (1 - probabilities) * (-logits).sigmoid().log()).sum(-1)
    expected = (entropy[0].mean() + entropy[1, :2].mean()) / 2
    torch.testing.assert_close(frame_label_loss(logits, probabilities, scored), expected)


def test_a_model_of_frames_learns_and_hears_events(clips, heard, tmp_path, capsys):
    argv = still(clips, tmp_path / "run", [heard], "--learning_rate", "1e-2", *NO_SAVES)
    argv[argv.index("--max_steps") + 1] = "60"
    distill.main(argv)
    found = losses(tmp_path / "run", "label_loss")
    assert np.mean(found[-5:]) < 0.8 * np.mean(found[:2])
    model = AutoModelForAudioFrameClassification.from_pretrained(tmp_path / "run")
    assert model.config.id2label == SOUND_LABELS and model.config.architectures == ["HEARForAudioFrameClassification"]
    card = (tmp_path / "run" / "README.md").read_text()
    assert "It says which of 5 kinds of sound are heard when" in card and "No thresholds have been chosen" in card
    assert "pipeline_tag" not in card and "`heard`" in card
    capsys.readouterr()
    predict.main([str(tmp_path / "run"), str(next(clips.iterdir()))])
    assert " s to " in capsys.readouterr().out


def test_a_tagger_s_run_resumes_with_the_same_losses(clips, sounds, words, tmp_path):
    more = ["--save_steps", "2", "--label_window_seconds", "0.4"]
    distill.main(arguments(clips, tmp_path / "run", [sounds, words], *FRAMES, *more))
    more += ["--resume_from_checkpoint", str(tmp_path / "run" / "checkpoint-2")]
    distill.main(arguments(clips, tmp_path / "resumed", [sounds, words], *FRAMES, *more))
    for name in ("loss", "label_loss", "eval_label_loss", "eval_mean_average_precision"):
        expected = losses(tmp_path / "run", name)
        assert losses(tmp_path / "resumed", name) == pytest.approx(expected, abs=1e-6) and len(expected) > 0, name
    saved, resumed = (load_file(tmp_path / name / "model.safetensors") for name in ("run", "resumed"))
    assert saved.keys() == resumed.keys() and "frame_classifier.weight" in saved
    for name, tensor in saved.items():
        torch.testing.assert_close(resumed[name], tensor, rtol=0, atol=1e-6, msg=name)


def test_stored_labels_of_whole_clips_are_learned_by_pooling(clips, heard, tmp_path):
    precompute_teacher.main(storing(clips, tmp_path / "tables", heard))
    argv = from_tables(tmp_path / "tables", tmp_path / "run", *FRAMES, "--learning_rate", "1e-2", *NO_SAVES)
    argv[argv.index("--max_steps") + 1] = "40"
    distill.main(argv)
    found = losses(tmp_path / "run", "label_loss")
    assert np.mean(found[-5:]) < 0.9 * np.mean(found[:2])
    AutoModelForAudioFrameClassification.from_pretrained(tmp_path / "run")


def test_teachers_that_cannot_say_what_is_heard_when_are_refused(clips, words, tmp_path):
    with pytest.raises(ValueError, match="`frame_labels` must come with a teacher that has labels, found none"):
        distill.main(still(clips, tmp_path / "run", [words]))
    save_wav2vec2_classifier(tmp_path / "softmax")
    with pytest.raises(ValueError, match="any number of labels, or none, found a softmax over those of softmax"):
        distill.main(still(clips, tmp_path / "run", [tmp_path / "softmax"]))
    with pytest.raises(ValueError, match="`label_window_seconds` must be at least 0.1, found: 0.0"):
        distill.main(still(clips, tmp_path / "run", [words], "--label_window_seconds", "0"))


def test_a_classifier_of_clips_lends_its_encoder_and_gets_a_new_head(clips, sounds, tmp_path):
    distill.main(arguments(clips, tmp_path / "clips", [sounds], *NO_SAVES))
    more = ["--model_name_or_path", str(tmp_path / "clips"), "--learning_rate", "0"]
    distill.main(still(clips, tmp_path / "run", [sounds], *more, *NO_SAVES))
    before, after = (load_file(tmp_path / name / "model.safetensors") for name in ("clips", "run"))
    assert {name.partition(".")[0] for name in after} == {"hear", "frame_classifier"}
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items() if name.startswith("hear."))
    assert not torch.allclose(after["frame_classifier.bias"], after["frame_classifier.bias"][0])
