"""`examples/teach.py` on a tiny random model and tones, end to end, and its parts against plain arithmetic."""

import json
import logging
import shutil

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from transformers import AutoModelForAudioClassification, pipeline

import finetune
import hear_hf
import stream as stream_script
import teach as script
from hear_hf.data.labelled import DataArguments
from hear_hf.evaluation.logistic import NEVER, Head, Views, cross_validate, fit_heads, log_loss
from hear_hf.training.few_shot import (
    Labelled,
    TeachingArguments,
    divide_clips,
    load_base,
    load_taught_audio,
    load_unknown,
    teach,
    thresholds_at,
)
from hear_hf.training.taught_heads import with_linear_head, with_more_labels
from hear_hf.training.views import ViewArguments, cut_recordings
from helpers import SMALL, linear_model, noise, small_model, write_tone

MULTI_LABEL = "multi_label_classification"
FREQUENCIES = {"low": 200, "middle": 1000, "high": 5000}


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """The folder of a small model with seven labels, any number of them a clip, and its feature extractor."""
    return save_base(tmp_path_factory.mktemp("base"), small_model(problem_type=MULTI_LABEL))


@pytest.fixture(scope="module")
def tones(tmp_path_factory):
    """Three labels of six tones, one folder a label."""
    folder = tmp_path_factory.mktemp("tones")
    for label, frequency in FREQUENCIES.items():
        for i in range(6):
            write_tone(folder / label / f"{i}.wav", frequency * 1.03**i, 0.3, seed=i)
    return folder


@pytest.fixture(scope="module")
def hiss(tmp_path_factory):
    """Four recordings of noise of 2 s each."""
    folder = tmp_path_factory.mktemp("hiss")
    for i in range(4):
        write_tone(folder / f"{i}.wav", 12.0, 2.0, seed=50 + i)
    return folder


def save_base(folder, model):
    model.save_pretrained(folder)
    hear_hf.HEARFeatureExtractor().save_pretrained(folder)
    return folder


def run(base, data, output, *words):
    views = () if "--num_views" in words else ("--num_views", 2)
    argv = ["--model_name_or_path", base, "--data_dir", data, "--output_dir", output, *views, *words]
    return script.main([str(word) for word in argv])


def load(folder):
    return AutoModelForAudioClassification.from_pretrained(folder).eval()


def scores_of(folder, clip, **options):
    classifier = pipeline("audio-classification", str(folder))
    found = classifier({"array": clip.numpy(), "sampling_rate": 16_000}, top_k=100, **options)
    return {row["label"]: row["score"] for row in found}


def tone(frequency, num_samples=4800):
    return 0.3 * torch.sin(2 * np.pi * frequency * torch.arange(num_samples) / 16_000)


@pytest.fixture(scope="module")
def taught(base, tones, tmp_path_factory):
    folder = tmp_path_factory.mktemp("taught")
    return folder, run(base, tones, folder)


@pytest.fixture(scope="module")
def awake(base, tones, hiss, tmp_path_factory):
    """Taught beside unknown sounds of a window each of 0.5 s."""
    folder = tmp_path_factory.mktemp("awake")
    options = ("--unknown", hiss, "--window_seconds", 0.5, "--false_alarm_rate", 0.1)
    return folder, run(base, tones, folder, *options)


def test_a_taught_folder_is_a_classifier_that_pipeline_loads(taught, base):
    folder, _ = taught
    model = load(folder)
    assert model.config.classifier_proj_size is None and list(model.config.id2label.values()) == sorted(FREQUENCIES)
    assert all(torch.equal(*pair) for pair in zip(model.hear.parameters(), load(base).hear.parameters(), strict=True))
    for label, frequency in FREQUENCIES.items():
        scores = scores_of(folder, tone(frequency))
        assert max(scores, key=scores.__getitem__) == label and sum(scores.values()) == pytest.approx(1, abs=1e-4)


def test_the_card_and_the_figures_say_how_well_held_out_clips_are_told_apart(taught):
    folder, figures = taught
    assert figures == json.loads((folder / "teaching.json").read_text())
    assert figures["scores"]["accuracy"] > 0.8 and figures["num_folds"] == 5 and len(figures["spread"]) == 2
    card = (folder / "README.md").read_text()
    assert f"| Accuracy | {figures['scores']['accuracy']:.4f} | {figures['spread']['accuracy']:.4f} |" in card
    assert "| `middle` | 6 |" in card and "confusion_matrix.png" in card
    for name in ("confusion_matrix.png", "per_label.txt", "run_record.json"):
        assert (folder / name).stat().st_size > 100


def test_the_summary_names_the_next_command(base, tones, tmp_path, capsys):
    run(base, tones, tmp_path)
    out = capsys.readouterr().out
    assert "Taught 3 labels by 18 clips." in out and f"Next: python examples/predict.py {tmp_path} CLIP.wav" in out


def test_the_seed_decides_the_result(base, tones, tmp_path):
    heads = []
    for number, seed in enumerate((0, 0, 1)):
        run(base, tones, tmp_path / str(number), "--seed", seed, "--clips_per_class", 3)
        heads.append(load(tmp_path / str(number)).classifier.out_proj.weight)
    assert torch.equal(heads[0], heads[1]) and not torch.equal(heads[0], heads[2])


def test_a_test_split_is_scored_and_not_learned(base, tmp_path):
    for split, count in (("train", 4), ("test", 2)):
        for label, frequency in FREQUENCIES.items():
            for i in range(count):
                write_tone(tmp_path / "data" / split / label / f"{i}.wav", frequency, 0.3, seed=10 * count + i)
    figures = run(base, tmp_path / "data", tmp_path / "run")
    assert figures["test"]["accuracy"] > 0.8 and [label["num_clips"] for label in figures["labels"]] == [4, 4, 4]


def test_several_labels_a_clip_are_scored_one_by_one(base, tmp_path):
    rows = ["audio,label"]
    for i in range(18):
        labels = [("low", "high"), ("low",), ("high",)][i % 3]
        write_tone(tmp_path / f"{i}.wav", 300 if labels[0] == "low" else 5000, seed=i)
        rows.append(f"{i}.wav,{';'.join(labels)}")
    (tmp_path / "train.csv").write_text("\n".join(rows))
    words = ["--model_name_or_path", base, "--train_file", tmp_path / "train.csv", "--output_dir", tmp_path / "run"]
    figures = script.main([str(word) for word in words])
    config = load(tmp_path / "run").config
    assert config.problem_type == MULTI_LABEL and config.false_alarm_rate is None
    assert set(figures["scores"]) == {"mean_average_precision", "macro_f1"}


def test_a_single_word_is_taught_against_unknown_sounds(base, tones, hiss, tmp_path):
    (tmp_path / "words").mkdir()
    (tmp_path / "words" / "high").symlink_to(tones / "high")
    options = ("--unknown", hiss, "--window_seconds", 0.5, "--false_alarm_rate", 0.1)
    figures = run(base, tmp_path / "words", tmp_path / "run", *options)
    assert figures["labels"][0]["heard"] > 0.6 and figures["num_unknown"] == 16
    high = (tmp_path / "run" / "per_label.txt").read_text().splitlines()[2].split()
    assert high[0] == "high" and high[-1] == "6" and high[2] == f"{figures['labels'][0]['heard']:.2f}"
    assert set(scores_of(tmp_path / "run", tone(5000), function_to_apply="sigmoid")) == {"high"}


def test_a_score_of_a_half_is_the_threshold_of_the_false_alarm_rate(awake, hiss):
    folder, figures = awake
    assert load(folder).config.false_alarm_rate == 0.1 and load(folder).config.problem_type == MULTI_LABEL
    for label, frequency in FREQUENCIES.items():
        scores = scores_of(folder, tone(frequency, 8000), function_to_apply="sigmoid")
        assert scores[label] == max(scores.values())
    assert 0 <= figures["measured_rate"] <= 0.4
    card = (folder / "README.md").read_text()
    assert "A label is heard where its score reaches 0.5" in card and 'function_to_apply="sigmoid"' in card


def test_a_stream_names_what_reaches_its_threshold_or_nothing(awake, tmp_path, capsys, monkeypatch):
    folder, _ = awake
    write_tone(tmp_path / "clip.wav", 1000, 1.0)
    model, heard = load(folder), torch.tensor([3.0, -3.0, 1.0])
    for bias, expected in ((heard, "high 95.3%, middle 73.1%"), (-heard.abs(), "none of the labels")):
        model.classifier.out_proj.weight.data.zero_()
        model.classifier.out_proj.bias.data = bias
        model.save_pretrained(tmp_path / "model")
        hear_hf.HEARFeatureExtractor().save_pretrained(tmp_path / "model")
        stream_script.main([str(tmp_path / "model"), str(tmp_path / "clip.wav"), "--window", "0.5"])
        first, whole = capsys.readouterr().out.strip().splitlines()
        assert first.endswith(expected) and whole.endswith(expected)
        stream_script.main([str(tmp_path / "model"), str(tmp_path / "clip.wav"), "--json"])
        lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        assert list(lines[-1]["heard"]) == [name.split()[0] for name in expected.split(", ") if "%" in name]


@pytest.mark.parametrize("head", ["published", "linear"])
@torch.no_grad()
def test_kept_labels_have_their_logits_and_new_ones_those_of_a_linear_head(head):
    model = small_model(problem_type=MULTI_LABEL) if head == "published" else linear_model(problem_type=MULTI_LABEL)
    width, clips = 3 * SMALL["task_hidden_size"], torch.stack([noise(9000, seed) for seed in range(3)])
    rng = np.random.default_rng(0)
    new = Head(rng.normal(size=(3, width)), rng.normal(size=3))
    taught = with_more_labels(model, new, ["a", "b", "c"])
    logits, pooled = taught(clips).logits, model.hear(clips).pooler_output
    torch.testing.assert_close(logits[:, :7], model(clips).logits, rtol=0, atol=1e-5)
    torch.testing.assert_close(logits[:, 7:].numpy(), new(pooled.numpy()).astype(np.float32), rtol=0, atol=1e-3)
    assert [taught.config.id2label[i] for i in (0, 7, 9)] == ["LABEL_0", "a", "c"]
    assert model.config.num_labels == 7 and model.config.id2label.get(7) is None


@torch.no_grad()
def test_kept_labels_survive_saving_and_teaching_again(base, tones, tmp_path):
    run(base, tones, tmp_path / "once", "--keep_labels")
    renamed = tmp_path / "renamed"
    for label in FREQUENCIES:
        (renamed / f"very {label}").mkdir(parents=True)
        for file in (tones / label).iterdir():
            (renamed / f"very {label}" / file.name).symlink_to(file)
    run(tmp_path / "once", renamed, tmp_path / "twice", "--keep_labels")
    clip, old = noise(9000)[None], load(base)(noise(9000)[None]).logits
    once, twice = load(tmp_path / "once"), load(tmp_path / "twice")
    torch.testing.assert_close(once(clip).logits[:, :7], old, rtol=0, atol=1e-5)
    torch.testing.assert_close(twice(clip).logits[:, :10], once(clip).logits, rtol=0, atol=1e-5)
    assert twice.config.num_labels == 13 and twice.config.classifier_proj_size == SMALL["classifier_proj_size"] + 12
    assert "The 10 labels that it had before are kept" in (tmp_path / "twice" / "README.md").read_text()


def test_labels_that_sum_to_one_cannot_be_kept(tones, tmp_path):
    base = save_base(tmp_path / "base", small_model(problem_type="single_label_classification"))
    with pytest.raises(ValueError, match="scores each label by itself.*single_label.*--unknown"):
        run(base, tones, tmp_path / "run", "--keep_labels")
    assert not (tmp_path / "run").exists()


def test_a_label_that_the_checkpoint_has_already_is_refused(tones, tmp_path):
    names = {"id2label": {0: "low", 1: "rain"}, "label2id": {"low": 0, "rain": 1}, "problem_type": MULTI_LABEL}
    base = save_base(tmp_path / "base", linear_model(num_labels=2, **names))
    with pytest.raises(ValueError, match=r"must be new to the checkpoint, found \['low'\]"):
        run(base, tones, tmp_path / "run", "--keep_labels")


def test_a_checkpoint_without_a_task_model_is_refused_by_what_is_missing(tones, tmp_path):
    config = hear_hf.HEARConfig(**SMALL)
    hear_hf.HEARForPreTraining(config).save_pretrained(tmp_path / "base")
    hear_hf.HEARFeatureExtractor().save_pretrained(tmp_path / "base")
    with pytest.raises(ValueError, match=r"weights of a whole HEAR, found \d+ missing.*checkpoints/hear-tiny"):
        run(tmp_path / "base", tones, tmp_path / "run")


def test_a_base_model_without_a_head_is_taught_but_has_no_labels_to_keep(tones, tmp_path):
    base = save_base(tmp_path / "base", small_model().hear)
    assert run(base, tones, tmp_path / "run")["scores"]["accuracy"] > 0.8
    with pytest.raises(ValueError, match="found no labels that were trained"):
        run(base, tones, tmp_path / "run", "--keep_labels")


def test_a_label_of_one_clip_is_taught_and_named_as_not_judged(base, tones, tmp_path, caplog):
    for label in ("low", "high"):
        (tmp_path / "data" / label).mkdir(parents=True)
        for file in sorted((tones / label).iterdir())[: 6 if label == "low" else 1]:
            (tmp_path / "data" / label / file.name).symlink_to(file)
    figures = run(base, tmp_path / "data", tmp_path / "run")
    assert "taught but cannot be judged: high" in caplog.text
    assert {label["name"]: label["heard"] is None for label in figures["labels"]} == {"high": True, "low": False}


def test_one_clip_a_label_is_taught_without_figures(base, tones, tmp_path, capsys):
    figures = run(base, tones, tmp_path / "run", "--clips_per_class", 1)
    assert figures["scores"] == {} and figures["num_folds"] == 0
    assert "nothing, as there are too few clips" in capsys.readouterr().out
    assert "too few clips to hold any out" in (tmp_path / "run" / "README.md").read_text()
    assert len(scores_of(tmp_path / "run", tone(200))) == 3


def test_one_label_alone_is_refused(base, tones, tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "low").symlink_to(tones / "low")
    with pytest.raises(ValueError, match="at least two classes"):
        run(base, tmp_path / "data", tmp_path / "run")


def test_a_label_without_clips_is_refused_and_named(base, tones, tmp_path):
    for label in ("low", "high"):
        (tmp_path / "data" / label).mkdir(parents=True)
    (tmp_path / "data" / "low" / "0.wav").symlink_to(tones / "low" / "0.wav")
    with pytest.raises(ValueError, match="audio files, found none in .*high"):
        run(base, tmp_path / "data", tmp_path / "run")


def test_broken_unknown_recordings_are_skipped_and_too_many_refused(base, tones, hiss, tmp_path, caplog):
    for count in (1, 4):
        folder = tmp_path / str(count)
        folder.mkdir()
        for i in range(count):
            (folder / f"{i}.wav").write_bytes(b"RIFF no audio")
        words = ("--unknown", hiss, folder, "--window_seconds", 0.5, "--false_alarm_rate", 0.2)
        if count == 1:
            run(base, tones, tmp_path / "run", *words, "--max_unusable_share", 0.3)
            assert "Skipping" in caplog.text
        else:
            with pytest.raises(ValueError, match="may be unusable, found 4 of 8"):
                run(base, tones, tmp_path / "run", *words)


def test_a_rate_that_so_few_windows_cannot_show_is_said(base, tones, hiss, tmp_path, caplog):
    run(base, tones, tmp_path, "--unknown", hiss, "--window_seconds", 0.5, "--false_alarm_rate", 0.001)
    assert "cannot be measured on 16 unknown windows" in caplog.text


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--false_alarm_rate", 0), "`false_alarm_rate`"),
        (("--num_folds", 1), "`num_folds` must be at least 2"),
        (("--num_views", 0), "`num_views`"),
        (("--mixup_alpha", 0.2), "`mixup_alpha` must be 0"),
        (("--random_speed", 1.0), "`random_speed`"),
        (("--unknown", "nowhere"), "nowhere"),
    ],
)
def test_impossible_options_are_refused_by_name(base, tones, tmp_path, words, message):
    with pytest.raises(ValueError, match=message):
        run(base, tones, tmp_path / "run", *words)


def test_another_model_is_refused(tones, tmp_path):
    hear_hf.HEARQuantizer(hear_hf.HEARQuantizerConfig()).save_pretrained(tmp_path / "base")
    with pytest.raises(ValueError, match="must hold a HEAR, found a model of type 'hear_quantizer'"):
        run(tmp_path / "base", tones, tmp_path / "run")


def test_few_lines_of_python_teach_a_model(base, tones):
    args = TeachingArguments(model_name_or_path=str(base))
    dataset = load_taught_audio(DataArguments(data_dir=str(tones)), args)
    lesson = teach(*load_base(args), dataset, args, ViewArguments(num_views=1))
    assert lesson.model.config.num_labels == 3 and lesson.validation.logits.shape == (18, 3)


def test_fine_tuning_a_taught_model_forgets_its_thresholds(awake, tones):
    args = finetune.ModelArguments(model_name_or_path=str(awake[0]))
    from hear_hf.training.classification import load_model

    _, model = load_model(args, ["x", "y"], multi_label=False)
    assert model.config.false_alarm_rate is None and model.classifier.out_proj.out_features == 2


def test_a_folded_head_gives_the_logits_of_the_standardised_regression():
    rng = np.random.default_rng(0)
    features = rng.normal(size=(60, 5)) * [1, 10, 0.1, 3, 0] + [0, 100, 5, -3, 7]  # one does not vary
    targets = np.digitize(features[:, 3] + rng.normal(size=60), [-5, -1])
    regression = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, tol=1e-8)).fit(features, targets)
    expected = regression.decision_function(features)
    (head,) = fit_heads(features, targets, np.ones(60), [0.1])
    np.testing.assert_allclose(head(features) - head(features)[:, :1], expected - expected[:, :1], atol=2e-3)
    assert np.isfinite(head.weight).all()


def test_labels_one_by_one_are_regressions_of_their_own():
    rng = np.random.default_rng(0)
    features, targets = rng.normal(size=(60, 5)), rng.integers(0, 2, (60, 3))
    targets[:, 2] = 0  # no clip has it
    (head,) = fit_heads(features, targets, np.ones(60), [0.1])
    for i in range(2):
        regression = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, tol=1e-8)).fit(features, targets[:, i])
        np.testing.assert_allclose(head(features)[:, i], regression.decision_function(features), atol=2e-3)
    assert (head(features)[:, 2] == NEVER).all()


def test_two_classes_have_opposite_logits_and_missing_ones_never_win():
    features = np.array([[0.0], [0.1], [1.0], [1.1]])
    (head,) = fit_heads(features, np.array([0, 0, 2, 2]), np.ones(4), [1.0])
    logits = head(features)
    assert logits.argmax(1).tolist() == [0, 0, 2, 2] and (logits[:, 1] == NEVER).all()
    np.testing.assert_allclose(logits[:, 0], -logits[:, 2])


def test_views_count_as_much_as_their_clip():
    rng = np.random.default_rng(0)
    features, targets = rng.normal(size=(20, 3)), np.arange(20) % 2
    views = Views(np.repeat(features, 4, axis=0), np.repeat(np.arange(20), 4))
    (whole,) = fit_heads(features, targets, np.ones(20), [0.1])
    (viewed,) = fit_heads(views.features, targets[views.clips], views.weights, [0.1])
    np.testing.assert_allclose(viewed.weight, whole.weight, atol=1e-3)
    assert np.array_equal(views.originals, features)


def test_no_clip_is_scored_by_a_head_that_has_learned_from_it():
    rng = np.random.default_rng(0)
    features, targets = rng.normal(size=(40, 30)), rng.integers(0, 2, 40)  # noise, which a head would remember
    labelled = Labelled(["a", "b"], targets, np.arange(40), np.zeros(40, bool))
    divisions = divide_clips(labelled, 5, 0)
    found = cross_validate(Views(features, np.arange(40)), targets, divisions)
    assert sorted(np.concatenate(found.scored).tolist()) == list(range(40))
    assert not any(set(train) & set(test) for train, test in divisions)
    assert 0.2 < (found.logits.argmax(1) == targets).mean() < 0.8


def test_groups_stay_on_one_side():
    labelled = Labelled(["a", "b"], np.arange(24) % 2, np.arange(24) // 4, np.zeros(24, bool))
    for train, test in divide_clips(labelled, 3, 0):
        assert not set(labelled.groups[train]) & set(labelled.groups[test])


def test_the_loss_is_the_cross_entropy_of_torch():
    logits, classes = torch.randn(6, 3), torch.tensor([0, 1, 2, 0, 1, 2])
    expected = torch.nn.functional.cross_entropy(logits, classes).item()
    assert log_loss(logits.numpy(), classes.numpy()) == pytest.approx(expected, abs=1e-5)
    targets = torch.randint(0, 2, (6, 3))
    expected = torch.nn.functional.binary_cross_entropy_with_logits(logits, targets.float()).item()
    assert log_loss(logits.numpy(), targets.numpy()) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("rate", [0.01, 0.05, 0.2])
def test_a_threshold_lets_just_the_allowed_share_pass(rate):
    logits = np.random.default_rng(0).normal(size=(200, 3))
    assert ((logits >= thresholds_at(logits, rate)).sum(0) == int(200 * rate)).all()


def recordings(tmp_path, *seconds):
    for i, each in enumerate(seconds):
        write_tone(tmp_path / f"{i}.wav", 100.0, each, seed=i)
    return load_unknown(TeachingArguments(model_name_or_path="x", unknown=[str(tmp_path)]))


def test_short_recordings_are_joined_to_windows_of_one_length(tmp_path):
    cut, numbers = cut_recordings(recordings(tmp_path, *[0.3] * 10), 16_000, 1.0, 100, 0.0, 0)
    assert [len(window) for window in cut] == [16_000] * 3 and len(set(numbers)) == 3
    (short,), _ = cut_recordings(recordings(tmp_path / "few", 0.3), 16_000, 1.0, 100, 0.0, 0)
    assert len(short) == 4800


def test_a_long_recording_takes_no_more_than_its_share_of_the_windows(tmp_path):
    cut, numbers = cut_recordings(recordings(tmp_path, 20.0, 1.0, 1.0, 1.0), 16_000, 0.5, 8, 0.0, 0)
    assert len(cut) == 8 and np.bincount(numbers).tolist() == [2, 2, 2, 2]


def test_a_linear_head_is_put_on_a_copy_of_the_model():
    model = small_model()
    head = Head(np.ones((2, 3 * SMALL["task_hidden_size"])), np.array([1.0, 2.0]))
    taught = with_linear_head(model, head, ["a", "b"], "single_label_classification")
    assert model.config.num_labels == 7 and taught.config.label2id == {"a": 0, "b": 1}
    assert taught.hear.task_model.out_proj.weight is not model.hear.task_model.out_proj.weight


def test_the_log_is_quiet_where_nothing_is_wrong(base, tones, tmp_path, caplog):
    with caplog.at_level(logging.WARNING, logger="hear_hf"):
        run(base, tones, tmp_path)
    assert not caplog.records


def test_another_lesson_or_model_in_the_folder_is_not_replaced(taught, base, tones, tmp_path):
    folder = shutil.copytree(taught[0], tmp_path / "taught")
    run(base, tones, folder, "--num_views", 1)  # the same lesson, taught otherwise
    before = (folder / "model.safetensors").read_bytes()
    others = shutil.copytree(tones, tmp_path / "others")
    with pytest.raises(ValueError, match="found those of another in .*taught: data_dir was .*, is now .*others"):
        run(base, others, folder)
    with pytest.raises(ValueError, match="found those of another in .*base.*labels was"):
        run(base, tones, shutil.copytree(base, tmp_path / "base"))
    assert (folder / "model.safetensors").read_bytes() == before
