"""examples/distill.py end to end, with tiny random teachers and clips that are made here."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile
import torch
from safetensors.torch import load_file
from transformers import (
    ASTConfig,
    ASTFeatureExtractor,
    ASTForAudioClassification,
    AutoFeatureExtractor,
    AutoModel,
    AutoModelForAudioClassification,
    Wav2Vec2Config,
    Wav2Vec2ForSequenceClassification,
    pipeline,
)

import distill
from hear_hf import HEARConfig, HEARFeatureExtractor, HEARForAudioClassification
from hear_hf.acoustic_model_hear import HEARAcousticModel
from hear_hf.data.mixtures import MixtureArguments, centre, vary
from hear_hf.data.teacher_states import TeacherFeatures
from hear_hf.data.unlabelled import DistillationDataArguments
from hear_hf.training import distillation
from hear_hf.training.distillation import DistillationModel
from hear_hf.training.distillation_teachers import DistillationTeacher, DistillationTeacherArguments, load_teachers
from hear_hf.training.loading import EpochSampler
from hear_hf.training.student_probe import StudentProbeArguments, load_probe
from hear_hf.training.teacher_readers import PaddedReader, TimedFrames
from helpers import SOUND_LABELS, ragged_batch, save_wav2vec2

SAMPLING_RATE = 16_000
MODEL = (
    "hidden_size=16,intermediate_size=24,num_hidden_layers=1,num_attention_heads=2,window_length=20,window_overlap=4,"
    "hidden_dropout=0.0,activation_dropout=0.0,attention_dropout=0.0,task_hidden_size=8,task_num_attention_heads=2,"
    "task_intermediate_size=16,task_dropout=0.0,classifier_proj_size=16,classifier_dropout=0.0"
)
QUIET = ["--report_to", "none", "--disable_tqdm", "True", "--use_cpu", "True", "--logging_steps", "1", "--seed", "3"]
NO_SAVES = ["--eval_strategy", "no", "--save_strategy", "no"]


def arguments(clips: Path, output_dir: Path, teachers: list[Path], *more: str) -> list[str]:
    words = ["--data_dir", str(clips), "--output_dir", str(output_dir), "--config_overrides", MODEL]
    words += ["--teacher_name_or_path", *map(str, teachers), "--teacher_trust_remote_code"]
    words += ["--max_steps", "4", "--per_device_train_batch_size", "4", "--validation_share", "0.2"]
    return [*words, *QUIET, *more]


def losses(folder: Path, name: str = "loss") -> list[float]:
    history = json.loads((folder / "trainer_state.json").read_text())["log_history"]
    return [entry[name] for entry in history if name in entry]


def load(*folders: Path, **options) -> list[DistillationTeacher]:
    args = DistillationTeacherArguments([str(path) for path in folders], teacher_trust_remote_code=True, **options)
    return load_teachers(args, SAMPLING_RATE, torch.device("cpu"))


@pytest.fixture(scope="module")
def distilled(clips, sounds, words, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "distilled"
    distill.main(arguments(clips, folder, [words, sounds], "--save_steps", "2"))
    return folder


def test_each_loss_of_each_teacher_is_logged_in_training_and_evaluation(distilled):
    names = [f"{kind}_embedding_loss_{name}" for kind in ("clip", "frame") for name in ("sounds", "words")]
    for name in ("loss", *names, "label_loss", "agreement"):
        assert len(losses(distilled, name)) == 4 and losses(distilled, f"eval_{name}"), name
    assert losses(distilled, "eval_mean_average_precision") and losses(distilled, "audio_hours_per_second")
    weighted = sum(2 * losses(distilled, name)[0] for name in names) + 0.3 * losses(distilled, "label_loss")[0]
    assert losses(distilled)[0] == pytest.approx(weighted, rel=1e-4)


def test_the_folder_is_a_classifier_with_the_labels_of_the_first_teacher_that_has_some(distilled, clips):
    classifier = pipeline("audio-classification", model=str(distilled), device="cpu")
    found = classifier(soundfile.read(next(clips.iterdir()), dtype="float32")[0], top_k=5)
    assert {label["label"] for label in found} == set(SOUND_LABELS.values())
    assert classifier.model.config.problem_type == "multi_label_classification"
    card = (distilled / "README.md").read_text()
    assert "| `sounds` |" in card and "| cc0-1.0 |" in card and "| `words` |" in card and "not stated" in card
    assert (distilled / "training_curves.png").stat().st_size > 500


def test_projectors_are_in_checkpoints_alone(distilled):
    names = set(HEARForAudioClassification.from_pretrained(distilled).state_dict())
    assert set(load_file(distilled / "model.safetensors")) == names
    assert not (distilled / "projectors.safetensors").exists()
    checkpoint = distilled / "checkpoint-4"
    assert set(load_file(checkpoint / "model.safetensors")) == names
    assert {name.partition(".")[0] for name in load_file(checkpoint / "projectors.safetensors")} == {"clip", "frame"}


def test_distillation_learns(clips, sounds, words, tmp_path):
    more = ["--learning_rate", "1e-2", "--mixture_share", "0", "--random_gain_db", "0", *NO_SAVES]
    argv = arguments(clips, tmp_path, [sounds, words], *more)
    argv[argv.index("--max_steps") + 1] = "40"
    distill.main(argv)
    for name in ("loss", "clip_embedding_loss_sounds", "frame_embedding_loss_sounds", "clip_embedding_loss_words"):
        assert np.mean(losses(tmp_path, name)[-5:]) < 0.9 * np.mean(losses(tmp_path, name)[:2]), name


def test_a_resumed_run_continues_the_same_losses_and_measures_no_teacher(
    distilled, clips, sounds, words, tmp_path, monkeypatch
):
    more = ["--save_steps", "2", "--resume_from_checkpoint", str(distilled / "checkpoint-2")]
    monkeypatch.setattr(DistillationTeacher, "sample", None)  # what was measured lies in the checkpoint
    distill.main(arguments(clips, tmp_path, [words, sounds], *more))
    assert losses(tmp_path) == pytest.approx(losses(distilled), abs=1e-6)


def test_the_checkpoints_of_another_run_are_refused_before_a_teacher_is_loaded(distilled, clips, words, monkeypatch):
    monkeypatch.setattr(distill, "load_teachers", None)
    with pytest.raises(ValueError, match="found those of another in .*: learning_rate was .*, is now 0.5"):
        distill.main(arguments(clips, distilled, [words], "--learning_rate", "0.5"))


def test_balanced_sources_resume_to_the_same_losses(clips, sounds, tmp_path):
    entries = ["--train_file", str(clips / "0[0-3].wav"), str(clips / "*[4-9].wav"), "--source_weights", "equal"]
    more = [*entries, "--eval_strategy", "no", "--save_steps", "3", "--max_steps", "5"]
    distill.main(arguments(clips, tmp_path / "run", [sounds], *more)[2:])
    more += ["--resume_from_checkpoint", str(tmp_path / "run" / "checkpoint-3")]
    distill.main(arguments(clips, tmp_path / "resumed", [sounds], *more)[2:])
    assert losses(tmp_path / "resumed") == pytest.approx(losses(tmp_path / "run"), abs=1e-6)


def test_averaged_weights_are_saved_and_evaluated_and_resume(clips, sounds, words, tmp_path):
    more = ["--ema_decay", "0.5", "--learning_rate", "1e-2", "--save_steps", "1", "--save_total_limit", "9"]
    distill.main(arguments(clips, tmp_path / "run", [sounds, words], *more))
    steps = [load_file(tmp_path / "run" / f"checkpoint-{i}" / "unaveraged.safetensors") for i in range(1, 5)]
    saved = load_file(tmp_path / "run" / "model.safetensors")
    for name, tensor in saved.items():
        expected = steps[0][f"student.{name}"]
        for step in steps[1:]:
            expected = expected.lerp(step[f"student.{name}"], 0.5) if expected.is_floating_point() else tensor
        torch.testing.assert_close(tensor, expected, msg=name)
    assert not torch.equal(saved["classifier.out_proj.weight"], steps[-1]["student.classifier.out_proj.weight"])

    more += ["--resume_from_checkpoint", str(tmp_path / "run" / "checkpoint-2")]
    distill.main(arguments(clips, tmp_path / "resumed", [sounds, words], *more))
    for name in ("loss", "eval_loss"):
        assert losses(tmp_path / "resumed", name) == pytest.approx(losses(tmp_path / "run", name), abs=1e-6)
    for name, tensor in load_file(tmp_path / "resumed" / "model.safetensors").items():
        torch.testing.assert_close(tensor, saved[name], rtol=0, atol=1e-6, msg=name)

    # The saved model is what was evaluated: it gives the same loss again.
    more = ["--model_name_or_path", str(tmp_path / "run"), "--eval_on_start", "--save_strategy", "no"]
    distill.main(arguments(clips, tmp_path / "again", [sounds, words], *more))
    name = "eval_label_loss"
    assert losses(tmp_path / "again", name)[0] == pytest.approx(losses(tmp_path / "run", name)[-1], abs=1e-5)


def test_the_best_checkpoint_is_loaded_at_the_end(clips, sounds, tmp_path):
    more = ["--load_best_model_at_end", "--save_steps", "1", "--eval_steps", "1", "--learning_rate", "100"]
    distill.main(arguments(clips, tmp_path, [sounds], *more))
    state = json.loads((tmp_path / "trainer_state.json").read_text())
    best = load_file(Path(state["best_model_checkpoint"]) / "model.safetensors")
    found = load_file(tmp_path / "model.safetensors")
    assert state["best_model_checkpoint"].endswith("-1")  # the warm-up's, before the rate spoils the model
    assert all(torch.equal(found[name], tensor) for name, tensor in best.items())


def test_teachers_hear_what_the_student_hears(clips, sounds, words, tmp_path, monkeypatch):
    heard, read = [], []
    ours, theirs = HEARForAudioClassification.__init__, DistillationTeacher.__call__

    def listening(model, config):
        ours(model, config)
        model.hear.register_forward_pre_hook(lambda _, inputs: read.append(inputs[0].clone()))

    def listened(teacher, waveform, mask):
        heard.append(waveform.clone())
        return theirs(teacher, waveform, mask)

    monkeypatch.setattr(HEARForAudioClassification, "__init__", listening)
    monkeypatch.setattr(DistillationTeacher, "__call__", listened)
    distill.main(arguments(clips, tmp_path, [sounds, words], *NO_SAVES, "--mixture_share", "1"))
    heard = heard[-2 * len(read) :]  # those before are of the measurement
    for waveform, first, second in zip(read, heard[::2], heard[1::2], strict=True):
        assert torch.equal(waveform, first) and torch.equal(waveform, second)
    assert len(read) == 5 and read[0].abs().max() > 0.4  # four steps and an evaluation; louder than any single clip


def test_without_a_labelled_teacher_embeddings_alone_are_learned(clips, words, tmp_path):
    distill.main(arguments(clips, tmp_path / "run", [words]))
    assert not losses(tmp_path / "run", "label_loss") and losses(tmp_path / "run", "eval_clip_embedding_loss_words")
    assert "no labels yet" in (tmp_path / "run" / "README.md").read_text()
    AutoModelForAudioClassification.from_pretrained(tmp_path / "run")


def save_wav2vec2_classifier(folder: Path) -> None:
    save_wav2vec2(folder)
    config = Wav2Vec2Config.from_pretrained(
        folder, id2label=SOUND_LABELS, label2id={n: i for i, n in SOUND_LABELS.items()}
    )
    config.classifier_proj_size = 8
    Wav2Vec2ForSequenceClassification(config).save_pretrained(folder)


def test_a_softmax_teacher_of_transformers_gives_labels_and_embeddings(clips, tmp_path):
    save_wav2vec2_classifier(tmp_path / "teacher")
    distill.main(arguments(clips, tmp_path / "run", [tmp_path / "teacher"]))
    model = HEARForAudioClassification.from_pretrained(tmp_path / "run")
    assert model.config.problem_type == "single_label_classification" and model.config.id2label == SOUND_LABELS
    assert all(0 <= loss < 1 for loss in losses(tmp_path / "run", "label_loss"))
    assert all(0 < loss < 2 for loss in losses(tmp_path / "run", "frame_embedding_loss_teacher"))


def test_a_student_that_is_its_teacher_agrees(clips, tmp_path):
    config = HEARConfig(id2label=SOUND_LABELS, label2id={name: i for i, name in SOUND_LABELS.items()})
    config.update_from_string(MODEL)
    config.problem_type = "multi_label_classification"
    HEARForAudioClassification(config).save_pretrained(tmp_path / "hear")
    HEARFeatureExtractor().save_pretrained(tmp_path / "hear")
    # Before the first step, which moves the statistics of the head's batch norm.
    more = ["--model_name_or_path", str(tmp_path / "hear"), "--eval_on_start", "--save_strategy", "no"]
    distill.main(arguments(clips, tmp_path / "run", [tmp_path / "hear"], *more))
    assert losses(tmp_path / "run", "eval_agreement")[0] == 1


def test_going_on_from_a_model_of_other_labels_is_refused(distilled, clips, tmp_path):
    save_wav2vec2_classifier(tmp_path / "teacher")
    config = Wav2Vec2Config.from_pretrained(tmp_path / "teacher")
    config.id2label = {i: f"other {i}" for i in range(5)}
    config.save_pretrained(tmp_path / "teacher")
    more = ["--model_name_or_path", str(distilled)]
    with pytest.raises(ValueError, match="labels of `model_name_or_path` must be those of the teacher teacher"):
        distill.main(arguments(clips, tmp_path / "run", [tmp_path / "teacher"], *more))


def test_a_run_goes_on_from_a_distilled_model(distilled, clips, sounds, tmp_path):
    more = ["--model_name_or_path", str(distilled), "--learning_rate", "0", *NO_SAVES]
    distill.main(arguments(clips, tmp_path, [sounds], *more))
    before, after = (HEARForAudioClassification.from_pretrained(folder) for folder in (distilled, tmp_path))
    assert all(torch.equal(a, b) for a, b in zip(before.parameters(), after.parameters(), strict=True))


def test_no_teacher_and_one_without_the_weights_of_its_head_are_refused(tmp_path):
    with pytest.raises(ValueError, match="must name at least one audio model"):
        load()
    save_wav2vec2(tmp_path / "headless")
    config = Wav2Vec2Config.from_pretrained(tmp_path / "headless")
    config.architectures = ["Wav2Vec2ForSequenceClassification"]
    config.save_pretrained(tmp_path / "headless")
    with pytest.raises(ValueError, match="must hold the weights of Wav2Vec2ForSequenceClassification, found 4"):
        load(tmp_path / "headless")


@pytest.mark.parametrize("name", ["sounds", "words"])
def test_a_padded_batch_gives_a_teacher_s_outputs_of_each_clip_alone(name, request):
    (teacher,) = load(request.getfixturevalue(name))
    assert isinstance(teacher.reader, PaddedReader)
    clips = [0.1 * torch.randn(n) for n in (16_000, 9_000, 20_001)]
    together = teacher(*ragged_batch(clips))
    for i, clip in enumerate(clips):
        alone = teacher(clip[None], torch.ones(1, len(clip)))
        count = int(alone.num_frames)
        assert int(together.num_frames[i]) == count
        torch.testing.assert_close(together.frames[i, :count], alone.frames[0], rtol=0, atol=1e-4)
        torch.testing.assert_close(together.clip_embedding[i], alone.clip_embedding[0], rtol=0, atol=1e-4)


def test_a_teacher_gives_what_its_model_gives_of_the_same_waveform(words):
    (teacher,) = load(words)
    clip = 0.1 * torch.randn(1, 20_000)
    model, extractor = (
        AutoModel.from_pretrained(words, trust_remote_code=True),
        AutoFeatureExtractor.from_pretrained(words, trust_remote_code=True),
    )
    expected = model(**extractor(clip[0].numpy(), sampling_rate=SAMPLING_RATE, return_tensors="pt"))
    torch.testing.assert_close(teacher(clip, torch.ones_like(clip)).frames, expected.last_hidden_state)


def test_a_teacher_of_another_rate_hears_the_same_tone(sounds):
    (teacher,) = load(sounds)
    time = torch.arange(32_000) / 32_000
    heard = []
    teacher.reader = lambda waveform, lengths: heard.append(waveform)
    tone = 0.3 * torch.sin(2 * torch.pi * 440 * time)
    teacher(tone[None, ::2], torch.ones(1, 16_000))
    torch.testing.assert_close(heard[0][0, 200:-200], tone[200:-200], rtol=0, atol=1e-3)


def test_a_teacher_that_reads_pieces_gives_the_mean_of_their_labels(tmp_path):
    config = ASTConfig(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, max_length=46)
    config.num_labels = 5
    ASTForAudioClassification(config).save_pretrained(tmp_path)
    ASTFeatureExtractor(max_length=46).save_pretrained(tmp_path)
    (teacher,) = load(tmp_path, teacher_problem_type="multi_label_classification")
    assert teacher.num_labels == 5 and teacher.is_multi_label
    pieces = 0.1 * torch.randn(2, teacher.reader.encoder.family.chunk_samples)
    apart = teacher(pieces, torch.ones_like(pieces))
    joined = teacher(pieces.flatten()[None], torch.ones(1, pieces.numel()))
    torch.testing.assert_close(joined.logits[0], apart.logits.mean(0))
    torch.testing.assert_close(joined.frames[0], apart.frames.flatten(0, 1))


def test_targets_lie_on_the_grid_of_stored_teacher_states():
    frames = torch.randn(2, 9, 4)
    counts = torch.tensor([[9], [6]])
    outputs = TimedFrames(frames, counts, torch.full((2, 1), 0.04), torch.full((2, 1), 0.08))
    ours, is_covered = outputs.at_encoder_frames(40)
    for i, count in enumerate(counts[:, 0].tolist()):
        expected = TeacherFeatures(4).targets(frames[i, :count], 0.08, 0.0, 40)
        torch.testing.assert_close(ours[i], expected, rtol=0, atol=1e-5)
    assert is_covered.sum(1).tolist() == [36, 24]  # 0.72 s and 0.48 s


def test_only_frames_between_the_first_and_the_last_of_a_teacher_are_covered(words):
    (teacher,) = load(words)
    outputs = teacher(0.1 * torch.randn(1, 16_000), torch.ones(1, 16_000))
    _, is_covered = outputs.at_encoder_frames(50)
    seconds = 0.005 + 0.02 * torch.arange(50)
    last = 0.39 + 0.08 * (int(outputs.num_frames) - 1)
    assert torch.equal(is_covered[0], (seconds >= 0.39 - 0.039) & (seconds <= last + 0.041))


def test_a_mixture_keeps_the_lengths_and_the_padding_silent():
    clips = [0.1 * torch.randn(n) for n in (4_000, 9_000, 2_500)]
    waveform, mask = ragged_batch(clips)
    args = MixtureArguments(random_gain_db=0, mixture_share=1, mixture_range_db=0)
    mixed, partners = vary(waveform, mask, args, SAMPLING_RATE)
    assert not mixed[mask == 0].any()
    for i, clip in enumerate(clips):
        assert partners[i] == i or not torch.equal(mixed[i, : len(clip)], clip)
    torch.manual_seed(0)
    unmixed, partners = vary(waveform, mask, MixtureArguments(mixture_share=0), SAMPLING_RATE)
    ratios = [unmixed[i, : len(clip)] / clip for i, clip in enumerate(clips)]
    assert all(ratio.std() < 1e-4 and 0.5 <= ratio[0] <= 2 for ratio in ratios) and partners.tolist() == [0, 1, 2]
    with pytest.raises(ValueError, match="`mixture_share` must be between 0 and 1"):
        MixtureArguments(mixture_share=2)


def test_short_clips_are_put_in_the_middle_of_silence_and_longer_ones_stay():
    clips = [torch.randn(n) for n in (1_001, 5_000, 3_000)]
    waveform, mask = ragged_batch(clips)
    centred, wider, before = centre(waveform, mask, 4_000)
    assert before.tolist() == [[1_499], [0], [500]]
    assert wider.sum(-1).tolist() == [4_000, 5_000, 4_000] and torch.equal(centred[1], waveform[1])
    assert (
        torch.equal(centred[0, 1_499:2_500], clips[0])
        and not centred[0, :1_499].any()
        and not centred[0, 2_500:].any()
    )
    whole, mask, _ = centre(waveform, mask, 6_000)
    assert whole.shape == (3, 6_000) and mask.all() and torch.equal(whole[1, 500:5_500], clips[1])


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_teachers_hear_silence_around_short_clips_and_the_model_around_half_of_them(
    clips, sounds, tmp_path, monkeypatch, share
):
    seen, forward = [], DistillationModel.forward
    monkeypatch.setattr(
        DistillationModel, "forward", lambda self, **inputs: seen.append(inputs) or forward(self, **inputs)
    )
    monkeypatch.setattr(distillation, "CENTRED_SHARE", share)
    more = ["--centre_seconds", "3", "--mixture_share", "0", "--random_gain_db", "0", "--max_steps", "1"]
    distill.main(arguments(clips, tmp_path, [sounds], *NO_SAVES, *more))
    (inputs,) = (x for x in seen if x["input_values"].shape[0] == 4)
    lengths = inputs["attention_mask"].sum(-1)
    silent = (3 * SAMPLING_RATE - lengths) // 2 if share == 0 else torch.zeros(4, dtype=torch.long)
    assert (lengths == 3 * SAMPLING_RATE).all() == (share == 1)

    (teacher,) = load(sounds)
    alone = [row[:length] for row, length in zip(inputs["input_values"], lengths, strict=True)]
    heard, mask, before = centre(*ragged_batch(alone, fill=0.0), 3 * SAMPLING_RATE)
    assert before[:, 0].tolist() == silent.tolist()
    outputs = teacher(heard, mask)
    for i, length in enumerate(lengths.tolist()):
        seconds = 0.005 + 0.02 * np.arange(length // 320) + before[i].item() / SAMPLING_RATE  # in what it heard
        position = (seconds - outputs.first_center[i].item()) / outputs.step[i].item()
        rows = outputs.frames[i].numpy()
        expected = np.stack([np.interp(position, np.arange(len(rows)), column) for column in rows.T], axis=1)
        found = inputs["frame_targets"][0][i, : length // 320].numpy()
        varied = np.flatnonzero(expected.std(0) > 1e-5)
        assert len(varied) > 3
        for k in varied:  # standardised: a straight line of what the teacher gave
            assert np.corrcoef(expected[:, k], found[:, k])[0, 1] > 0.999


def test_a_shift_turns_each_clip_within_its_own_length():
    clips = [torch.arange(1.0, n + 1) for n in (4_000, 9_000, 2_500)]
    waveform, mask = ragged_batch(clips)
    args = MixtureArguments(random_gain_db=0, mixture_share=0, random_shift_seconds=0.1)
    shifted, _ = vary(waveform, mask, args, SAMPLING_RATE)
    offsets = [int(shifted[i, : len(clip)].argmin()) for i, clip in enumerate(clips)]
    for row, clip, offset in zip(shifted, clips, offsets, strict=True):
        assert torch.equal(row[: len(clip)], clip.roll(offset)) and not row[len(clip) :].any()
        assert min(offset, len(clip) - offset) <= 1_600
    assert len(set(offsets)) == 3


def write_labels(clips: Path, folder: Path, labels: list) -> list[str]:
    """A table of the clips with a label each, and the arguments that name it."""
    pq.write_table(
        pa.table({"audio": [str(file) for file in sorted(clips.iterdir())], "label": labels}), folder / "t.parquet"
    )
    return ["--train_file", str(folder / "t.parquet"), "--label_column_name", "label"]


@pytest.mark.parametrize("softmax", [False, True])
def test_labels_of_clips_are_learned_where_they_have_some(clips, sounds, tmp_path, softmax):
    labels = [None if i % 4 == 3 else f"sound {i % 4}" for i in range(16)]
    more = [*write_labels(clips, tmp_path, labels), *NO_SAVES, "--max_steps", "40", "--learning_rate", "1e-2"]
    more += ["--label_loss_weight", "0", "--true_label_loss_weight", "1", "--mixture_share", "0"]
    more += ["--teacher_problem_type", "single_label_classification"] if softmax else []
    distill.main(arguments(clips, tmp_path / "run", [sounds], *more)[2:])
    found = losses(tmp_path / "run", "true_label_loss")
    assert np.mean(found[-5:]) < 0.7 * np.mean(found[:2]) and losses(tmp_path / "run", "eval_true_label_loss")


def test_a_mixture_has_the_labels_of_both_clips_if_both_have_some(clips, sounds, tmp_path, monkeypatch):
    labels = ["sound 0;sound 1", None, "sound 2", "sound 3"] * 4
    more = write_labels(clips, tmp_path, labels)
    seen, forward = [], DistillationModel.forward
    monkeypatch.setattr(
        DistillationModel,
        "forward",
        lambda self, **inputs: seen.append(inputs["true_labels"]) or forward(self, **inputs),
    )
    pairs = [1, 2, 0, 3]
    monkeypatch.setattr(distillation, "vary", lambda waveform, *_: (waveform, torch.tensor(pairs)))
    monkeypatch.setattr(EpochSampler, "__iter__", lambda self: iter(range(4)))
    more += ["--validation_share", "0", "--max_steps", "1", *NO_SAVES]
    distill.main(arguments(clips, tmp_path / "run", [sounds], *more)[2:])
    assert seen[0].tolist() == [[0] * 5, [0] * 5, [1, 1, 1, 0, 0], [0, 0, 0, 1, 0]]


def test_held_out_clips_and_loose_files_need_no_labels(clips, sounds, tmp_path):
    more = write_labels(clips, tmp_path, ["sound 1"] * 16)
    more = [*more[:2], str(clips / "00.wav"), *more[2:], "--validation_file", str(clips / "01.wav"), *NO_SAVES]
    distill.main(arguments(clips, tmp_path / "run", [sounds], *more)[2:])
    assert losses(tmp_path / "run", "eval_true_label_loss") == [0]


def test_labels_that_the_teacher_does_not_know_are_refused(clips, sounds, words, tmp_path):
    for labels, teacher, message in (
        (["sound 0", "a cat"] * 8, sounds, r"among the teacher's 5, found also \['a cat'\]"),
        (["", None] * 8, sounds, "among the teacher's 5, found none"),
        (["sound 0"] * 16, words, "must come with a teacher that has labels"),
    ):
        more = write_labels(clips, tmp_path, labels)
        with pytest.raises(ValueError, match=message):
            distill.main(arguments(clips, tmp_path / "run", [teacher], *more)[2:])
    with pytest.raises(ValueError, match="`label_column_name` must come without `streaming`"):
        DistillationDataArguments(label_column_name="label", streaming=True)


def test_a_probe_is_scored_at_each_evaluation(clips, words, tmp_path):
    _, table, *_ = write_labels(clips, tmp_path, ["low", "high"] * 8)
    more = ["--probe_file", table, "--probe_test_file", table, "--save_strategy", "no", "--eval_steps", "2"]
    distill.main(arguments(clips, tmp_path / "run", [words], *more))
    scores = losses(tmp_path / "run", "eval_probe_accuracy")
    assert len(scores) == 3 and all(0.5 <= score <= 1 for score in scores)  # after steps 2 and 4, and at the end
    assert "Probe accuracy" in (tmp_path / "run" / "README.md").read_text()

    feature_extractor = HEARFeatureExtractor()
    model = HEARForAudioClassification.from_pretrained(tmp_path / "run").hear.eval()
    probe = load_probe(StudentProbeArguments(probe_file=[table], probe_test_file=[table]), feature_extractor, 3)
    assert probe(model, 3)["probe_accuracy"] == pytest.approx(scores[-1])
    waveform = soundfile.read(probe.clips.audio[0]["audio"]["path"])[0]
    single = feature_extractor(waveform, sampling_rate=16_000, return_tensors="pt")
    expected = model(**single).pooler_output[0].detach().numpy()
    np.testing.assert_allclose(probe.features(model, 3)[0], expected, atol=1e-4)


def test_a_probe_without_evaluations_is_refused(clips, words, tmp_path):
    _, table, *_ = write_labels(clips, tmp_path, ["low", "high"] * 8)
    more = ["--probe_file", table, "--validation_share", "0"]
    with pytest.raises(ValueError, match="`probe_file` must come with held-out clips"):
        distill.main(arguments(clips, tmp_path / "run", [words], *more))
    with pytest.raises(ValueError, match="`probe_test_file` must come with `probe_file`"):
        StudentProbeArguments(probe_test_file=[table])


def test_spec_augment_is_the_student_s_alone(clips, words, tmp_path, monkeypatch):
    masked, ours = [], HEARAcousticModel.forward
    monkeypatch.setattr(
        HEARAcousticModel,
        "forward",
        lambda model, x, masks, *args: masked.append(masks) or ours(model, x, masks, *args),
    )
    argv = arguments(clips, tmp_path, [words], *NO_SAVES)
    argv[argv.index("--config_overrides") + 1] += ",apply_spec_augment=True,mask_time_prob=0.3"
    distill.main(argv)
    assert all(masks.mask_time_indices.any() for masks in masked[:4]) and masked[4].mask_time_indices is None


def test_gradient_accumulation_changes_nothing(clips, sounds, words, tmp_path):
    # Without mixtures, which are of the clips of a batch, and without the batch norm's own means.
    for name, size, steps in (("whole", "4", "1"), ("accumulated", "1", "4")):
        more = ["--gradient_accumulation_steps", steps, "--mixture_share", "0", "--random_gain_db", "0", *NO_SAVES]
        more += ["--optim", "sgd", "--learning_rate", "0", "--label_loss_weight", "0"]
        argv = arguments(clips, tmp_path / name, [sounds, words], *more)
        argv[argv.index("--per_device_train_batch_size") + 1] = size
        distill.main(argv)
    assert losses(tmp_path / "accumulated") == pytest.approx(losses(tmp_path / "whole"), abs=1e-4)


@pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="PyTorch 2.9 brought Muon")
def test_a_run_with_muon_learns_and_resumes(clips, sounds, words, tmp_path):
    more = ["--optim", "muon", "--learning_rate", "1e-2", "--eval_strategy", "no", "--save_steps", "2"]
    distill.main(arguments(clips, tmp_path / "run", [sounds, words], *more))
    more += ["--resume_from_checkpoint", str(tmp_path / "run" / "checkpoint-2")]
    distill.main(arguments(clips, tmp_path / "resumed", [sounds, words], *more))
    assert losses(tmp_path / "resumed") == pytest.approx(losses(tmp_path / "run"), abs=1e-5)
