"""`examples/finetune.py` on tiny models and tones, end to end, and its parts against plain arithmetic."""

import json
import shutil

import numpy as np
import pytest
import soundfile
import torch
from datasets import Audio, ClassLabel, Dataset
from transformers import EvalPrediction, pipeline

import finetune
import hear_hf
from hear_hf.arguments import parse_arguments
from hear_hf.data.augmentation import AugmentationArguments, augment, mixup
from hear_hf.data.labelled import DataArguments, load_labelled_audio
from hear_hf.data.preparation import prepare_clips
from hear_hf.evaluation.metrics import multi_label_metrics, single_label_metrics
from hear_hf.task_model_hear import HEARClassificationHead
from hear_hf.training import classification
from hear_hf.training.classification import (
    FineTuningArguments,
    ModelArguments,
    build_trainer,
    freeze,
    load_model,
)
from hear_hf.training.heads import fit_head
from hear_hf.training.optimization import (
    BatchNormCalibration,
    ClassificationLoss,
    balanced_label_weights,
    parameter_groups,
)
from hear_hf.training.pretraining import PretrainingArguments
from helpers import write_tone

RATE = 16_000
TINY = (
    "hidden_size=32,num_hidden_layers=2,intermediate_size=64,task_hidden_size=32,task_intermediate_size=64,"
    "classifier_proj_size=16"
)
QUICK = ["--disable_tqdm", "True", "--config_overrides", TINY, "--learning_rate", "3e-3", "--use_cpu", "True"]


@pytest.fixture
def tones(tmp_path):
    """Three classes of eight clips of different lengths, one folder a class."""
    for label, frequency in (("low", 200), ("middle", 1000), ("high", 5000)):
        for i in range(8):
            write_tone(tmp_path / "tones" / label / f"{i}.wav", frequency, 0.2 + 0.05 * i, seed=i)
    return tmp_path / "tones"


@pytest.fixture
def tagged(tmp_path):
    """A table of clips with any number of the labels `low` and `high`."""
    rows = ["audio,label"]
    for i in range(24):
        labels = [("low", "high"), ("low",), ("high",)][i % 3]
        write_tone(tmp_path / f"{i}.wav", 300 if labels[0] == "low" else 5000, seed=i)
        rows.append(f"{i}.wav,{';'.join(labels)}")
    (tmp_path / "train.csv").write_text("\n".join(rows))
    return tmp_path / "train.csv"


@pytest.fixture
def pretrained(tmp_path):
    """A tiny classifier of seven other labels, with its feature extractor."""
    config = hear_hf.HEARConfig(num_labels=7)
    config.update_from_string(TINY)
    hear_hf.HEARForAudioClassification(config).save_pretrained(tmp_path / "pretrained")
    hear_hf.HEARFeatureExtractor().save_pretrained(tmp_path / "pretrained")
    return tmp_path / "pretrained"


@pytest.fixture
def reports():
    """Named by a test that reads the card or the plots."""


@pytest.fixture(autouse=True)
def no_reports(request, monkeypatch):
    """Other tests go without: they take as long as the training."""
    if "reports" not in request.fixturenames:
        monkeypatch.setattr(finetune, "report_classifier", lambda *args: None)


def run(output_dir, *arguments):
    return finetune.main([*QUICK, "--output_dir", str(output_dir), *map(str, arguments)])


def test_a_run_learns_and_leaves_a_folder_that_pipeline_loads(tones, tmp_path):
    metrics = run(tmp_path / "run", "--data_dir", tones, "--num_train_epochs", 12, "--validation_share", 0.25,
                  "--per_device_train_batch_size", 6)  # fmt: skip
    assert metrics["validation_accuracy"] > 0.6
    classifier = pipeline("audio-classification", model=str(tmp_path / "run"))
    clip, _ = soundfile.read(tones / "high" / "7.wav", dtype="float32")
    result = classifier({"array": clip, "sampling_rate": RATE})
    assert {entry["label"] for entry in result} == {"low", "middle", "high"}


def test_a_run_leaves_metrics_plots_and_a_filled_card(tones, reports, tmp_path):
    run(tmp_path / "run", "--data_dir", tones, "--num_train_epochs", 1, "--mixup_alpha", 0.3)
    for name in ("training_curve.png", "confusion_matrix.png", "per_label.txt", "preprocessor_config.json"):
        assert (tmp_path / "run" / name).stat().st_size > 0
    card = (tmp_path / "run" / "README.md").read_text()
    results = json.loads((tmp_path / "run" / "validation_results.json").read_text())
    assert f"{results['validation_accuracy']:.4f}" in card and "`middle`" in card and "model-index" in card
    assert "{{" not in card and "{%" not in card and str(tmp_path) not in card


def test_several_labels_a_clip_work_end_to_end(tagged, tmp_path):
    metrics = run(tmp_path / "run", "--train_file", tagged, "--num_train_epochs", 10, "--class_balanced", True,
                  "--validation_share", 0.25, "--mixup_alpha", 0.2, "--per_device_train_batch_size", 6)  # fmt: skip
    assert metrics["validation_mean_average_precision"] > 0.6
    config = hear_hf.HEARConfig.from_pretrained(tmp_path / "run")
    assert config.problem_type == "multi_label_classification"
    assert set(config.label2id) == {"low", "high"}


def test_a_resumed_run_ends_with_the_weights_of_an_uninterrupted_one(tones, tmp_path):
    arguments = ["--data_dir", tones, "--num_train_epochs", 2, "--save_total_limit", 5, "--mixup_alpha", 0.3,
                 "--load_best_model_at_end", "False"]  # fmt: skip
    run(tmp_path / "run", *arguments)
    whole = hear_hf.HEARForAudioClassification.from_pretrained(tmp_path / "run").state_dict()
    checkpoints = sorted((tmp_path / "run").glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1]))
    assert len(checkpoints) == 2
    shutil.rmtree(checkpoints[1])
    (tmp_path / "run" / "model.safetensors").unlink()
    run(tmp_path / "run", *arguments)
    resumed = hear_hf.HEARForAudioClassification.from_pretrained(tmp_path / "run").state_dict()
    assert all(torch.allclose(whole[name], resumed[name], atol=1e-6) for name in whole)


def test_gradient_accumulation_changes_nothing(tmp_path):
    # Every batch, of two clips or of four, holds the same clips equally often, so that batch norm is the same too.
    rows = ["audio,label"]
    for label, frequency in (("low", 200), ("high", 5000)):
        write_tone(tmp_path / f"{label}.wav", frequency)
        rows.append(f"{label}.wav,{label}")
    (tmp_path / "train.csv").write_text("\n".join([rows[0], *rows[1:] * 4]))
    weights = []
    for size, steps in ((4, 1), (2, 2)):
        run(tmp_path / f"{size}", "--train_file", tmp_path / "train.csv", "--validation_file", tmp_path / "train.csv",
            "--per_device_train_batch_size", size, "--gradient_accumulation_steps", steps, "--optim", "sgd",
            "--train_sampling_strategy", "sequential", "--num_train_epochs", 1, "--config_overrides",
            f"{TINY},hidden_dropout=0.0,activation_dropout=0.0,attention_dropout=0.0,"
            "task_dropout=0.0,classifier_dropout=0.0",
            "--learning_rate", 0.3, "--eval_strategy", "no",
            "--save_strategy", "no", "--load_best_model_at_end", "False")  # fmt: skip
        weights.append(
            dict(hear_hf.HEARForAudioClassification.from_pretrained(tmp_path / f"{size}").named_parameters())
        )
    for name, parameter in weights[0].items():
        torch.testing.assert_close(weights[1][name], parameter, rtol=0, atol=1e-5, msg=name)


def test_resuming_without_a_checkpoint_is_a_clear_error(tones, tmp_path):
    with pytest.raises(ValueError, match="needs a checkpoint in .*found none"):
        run(tmp_path / "run", "--data_dir", tones, "--resume_from_checkpoint", "True")


def test_a_few_lines_of_python_train_a_model_that_pipeline_loads(tones, pretrained, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tones.rename("my_sounds")
    dataset = load_labelled_audio(DataArguments(data_dir="my_sounds"))
    trainer = build_trainer(
        dataset,
        FineTuningArguments(output_dir="runs/mine", num_train_epochs=2, disable_tqdm=True, use_cpu=True),
        ModelArguments(model_name_or_path=str(pretrained)),
    )
    trainer.train()
    trainer.save_model()
    assert 0 <= trainer.evaluate()["eval_accuracy"] <= 1
    classifier = pipeline("audio-classification", model="runs/mine")
    assert type(classifier.feature_extractor) is hear_hf.HEARFeatureExtractor
    clip, rate = soundfile.read("my_sounds/low/3.wav", dtype="float32")
    results = classifier({"array": clip, "sampling_rate": rate})
    assert {entry["label"] for entry in results} == {"low", "middle", "high"}
    assert results[0]["label"] == classifier(clip)[0]["label"]


def test_the_seed_decides_a_new_head(tones, pretrained, tmp_path):
    dataset = load_labelled_audio(DataArguments(data_dir=str(tones)))
    model_args = ModelArguments(model_name_or_path=str(pretrained))
    heads = []
    for seed in (1, 1, 2):
        training_args = FineTuningArguments(output_dir=str(tmp_path / "run"), seed=seed, use_cpu=True)
        heads.append(build_trainer(dataset, training_args, model_args).model.classifier.out_proj.weight)
    assert torch.equal(heads[0], heads[1]) and not torch.equal(heads[0], heads[2])


@pytest.mark.parametrize(
    ("asked", "chosen", "greater_is_better"),
    [(None, "accuracy", True), ("loss", "loss", False), ("macro_f1", "macro_f1", True)],
)
def test_the_best_checkpoint_is_chosen_by_accuracy_unless_another_metric_is_asked_for(
    tones, pretrained, tmp_path, asked, chosen, greater_is_better
):
    dataset = load_labelled_audio(DataArguments(data_dir=str(tones)))
    training_args = FineTuningArguments(output_dir=str(tmp_path / "run"), metric_for_best_model=asked, use_cpu=True)
    before = training_args.to_dict()
    args = build_trainer(dataset, training_args, ModelArguments(model_name_or_path=str(pretrained))).args
    assert (args.metric_for_best_model, args.greater_is_better) == (chosen, greater_is_better)
    assert training_args.to_dict() == before


def test_a_start_from_random_weights_is_said_and_names_a_checkpoint(pretrained, caplog):
    load_model(ModelArguments(model_name_or_path=str(pretrained)), ["low", "high"], multi_label=False)
    assert "random weights" not in caplog.text
    load_model(ModelArguments(config_overrides=TINY), ["low", "high"], multi_label=False)
    assert "random weights" in caplog.text and "--model_name_or_path checkpoints/hear-tiny" in caplog.text


def test_another_set_of_labels_keeps_the_pretrained_acoustic_model(tones, pretrained, tmp_path):
    run(tmp_path / "run", "--data_dir", tones, "--model_name_or_path", pretrained, "--freeze",
        "acoustic_model", "--num_train_epochs", 2, "--per_device_train_batch_size", 6)  # fmt: skip
    pretrained = hear_hf.HEARForAudioClassification.from_pretrained(pretrained)
    tuned = hear_hf.HEARForAudioClassification.from_pretrained(tmp_path / "run")
    assert tuned.config.num_labels == 3
    before, after = pretrained.hear.acoustic_model.state_dict(), tuned.hear.acoustic_model.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert not torch.equal(pretrained.hear.task_model.qkv_proj.weight, tuned.hear.task_model.qkv_proj.weight)


HEAD_ALONE = ["--head_epochs", 40, "--head_learning_rate", 1e-2, "--num_train_epochs", 0, "--validation_share", 0.25]


def test_a_head_learns_alone_what_the_frozen_model_tells_apart(tones, pretrained, reports, tmp_path):
    metrics = run(tmp_path / "run", "--data_dir", tones, "--model_name_or_path", pretrained, *HEAD_ALONE)
    assert metrics["validation_accuracy"] > 0.8
    before = hear_hf.HEARForAudioClassification.from_pretrained(pretrained).hear.state_dict()
    after = hear_hf.HEARForAudioClassification.from_pretrained(tmp_path / "run").hear.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_a_new_head_owes_nothing_to_that_of_the_checkpoint(tones, pretrained, tmp_path):
    model = hear_hf.HEARForAudioClassification.from_pretrained(pretrained)
    model.classifier.dense.weight.data.normal_()
    model.save_pretrained(tmp_path / "other")
    hear_hf.HEARFeatureExtractor().save_pretrained(tmp_path / "other")
    heads = []
    for folder in (pretrained, tmp_path / "other"):
        run(tmp_path / f"run_{folder.name}", "--data_dir", tones, "--model_name_or_path", folder, *HEAD_ALONE)
        tuned = hear_hf.HEARForAudioClassification.from_pretrained(tmp_path / f"run_{folder.name}")
        heads.append(tuned.classifier.state_dict())
    assert all(torch.equal(heads[0][name], heads[1][name]) for name in heads[0])


def test_a_head_of_several_labels_learns_alone(tagged, pretrained, tmp_path):
    options = ["--train_file", tagged, "--model_name_or_path", pretrained, "--decoded_cache", tmp_path / "cache"]
    metrics = run(tmp_path / "run", *options, *HEAD_ALONE)
    assert metrics["validation_mean_average_precision"] > 0.8


def test_a_run_that_goes_on_keeps_the_head_of_its_checkpoint(tones, pretrained, tmp_path, monkeypatch):
    arguments = ["--data_dir", tones, "--model_name_or_path", pretrained, *HEAD_ALONE, "--num_train_epochs", 1]
    run(tmp_path / "run", *arguments, "--learning_rate", 0)
    first = hear_hf.HEARForAudioClassification.from_pretrained(tmp_path / "run")
    monkeypatch.setattr(classification, "fit_head", lambda *args: pytest.fail("trained a second time"))
    run(tmp_path / "run", *arguments, "--learning_rate", 0)
    again = hear_hf.HEARForAudioClassification.from_pretrained(tmp_path / "run")
    assert torch.equal(first.classifier.out_proj.weight, again.classifier.out_proj.weight)


def test_a_head_ends_with_the_statistics_of_all_embeddings():
    head = HEARClassificationHead(hear_hf.HEARConfig(task_hidden_size=8, classifier_proj_size=6, num_labels=3))
    embeddings, labels = torch.randn(70, 24), torch.randint(0, 3, (70,))
    fit_head(head, embeddings, labels, ClassificationLoss(False), 3, 1e-2, 0.0, seed=0)
    with torch.no_grad():
        expected = head.dense(embeddings)
    torch.testing.assert_close(head.batch_norm.running_mean, expected.mean(0))
    torch.testing.assert_close(head.batch_norm.running_var, expected.var(0))


def test_less_than_no_passes_of_the_head_are_refused(tmp_path):
    with pytest.raises(ValueError, match="`head_epochs` must be at least 0, found: -1"):
        FineTuningArguments(str(tmp_path), head_epochs=-1, use_cpu=True)


@pytest.mark.parametrize("arguments", [FineTuningArguments, PretrainingArguments])
def test_columns_that_the_model_does_not_take_are_for_the_decoder_alone(arguments, tmp_path):
    write_tone(tmp_path / "0.wav", 200)
    clips = Dataset.from_dict({"file": ["0"], "audio": [str(tmp_path / "0.wav")], "label": [1]})
    clips = clips.cast_column("audio", Audio(decode=False)).cast_column("label", ClassLabel(names=["a", "b"]))
    assert set(prepare_clips(clips, RATE)[0]) == {"input_values", "labels"}
    assert not arguments(str(tmp_path), use_cpu=True).remove_unused_columns
    with pytest.raises(ValueError, match="`remove_unused_columns` must be False"):
        arguments(str(tmp_path), use_cpu=True, remove_unused_columns=True)


def test_early_stopping_ends_a_run_that_no_longer_improves(tones, tmp_path):
    run(tmp_path / "run", "--data_dir", tones, "--num_train_epochs", 20, "--early_stopping_patience", 1,
        "--learning_rate", 0)  # fmt: skip
    state = json.loads((tmp_path / "run" / "trainer_state.json").read_text())
    assert state["epoch"] <= 3


def test_arguments_may_come_from_a_file(tmp_path):
    (tmp_path / "run.json").write_text(json.dumps({"output_dir": str(tmp_path), "mixup_alpha": 0.7}))
    arguments = (AugmentationArguments, FineTuningArguments)
    augmentation_args, training_args = parse_arguments(arguments, [str(tmp_path / "run.json")])
    assert augmentation_args.mixup_alpha == 0.7 and training_args.output_dir == str(tmp_path)


@pytest.mark.parametrize(
    ("part", "frozen"),
    [
        ("none", ()),
        ("feature_encoder", ("hear.acoustic_model.feature_encoder",)),
        ("acoustic_model", ("hear.acoustic_model",)),
        ("base_model", ("hear",)),
    ],
)
def test_freezing_stops_just_the_named_part(part, frozen):
    model = hear_hf.HEARForAudioClassification(hear_hf.HEARConfig(num_hidden_layers=1))
    freeze(model, part)
    for name, parameter in model.named_parameters():
        assert parameter.requires_grad != name.startswith(tuple(f"{module}." for module in frozen)), name


def test_the_acoustic_model_learns_at_its_own_rate_falling_from_layer_to_layer():
    model = hear_hf.HEARForAudioClassification(hear_hf.HEARConfig(num_hidden_layers=3))
    groups = parameter_groups(model, 1.0, 0.1, acoustic_scale=0.5, layerwise_decay=0.1)
    rates = {id(parameter): group["lr"] for group in groups for parameter in group["params"]}
    layers = model.hear.acoustic_model.layers
    found = [rates[id(layer.attention.q_proj.weight)] for layer in layers]
    assert found == pytest.approx([0.005, 0.05, 0.5])
    assert rates[id(model.hear.acoustic_model.feature_encoder.conv.weight)] == pytest.approx(0.0005)
    assert rates[id(model.classifier.dense.weight)] == 1.0
    assert len(rates) == len(list(model.parameters()))


def test_biases_and_norms_do_not_decay():
    model = hear_hf.HEARForAudioClassification(hear_hf.HEARConfig(num_hidden_layers=1))
    groups = parameter_groups(model, learning_rate=1.0, weight_decay=0.1)
    decays = {id(parameter): group["weight_decay"] for group in groups for parameter in group["params"]}
    for name, parameter in model.named_parameters():
        is_free = name.endswith("bias") or "norm" in name
        assert decays[id(parameter)] == (0.0 if is_free else 0.1), name


def test_the_loss_is_a_mean_over_the_clips_of_the_whole_step():
    logits, labels = torch.randn(6, 4), torch.tensor([0, 1, 2, 3, 0, 1])
    loss = ClassificationLoss(multi_label=False)
    whole = loss({"logits": logits}, labels)
    parts = [loss({"logits": logits[part]}, labels[part], num_items_in_batch=6) for part in (slice(0, 4), slice(4, 6))]
    torch.testing.assert_close(sum(parts), whole)
    torch.testing.assert_close(whole, torch.nn.functional.cross_entropy(logits, labels))


def test_mixed_targets_count_as_one_clip_each():
    logits, targets = torch.randn(6, 4), torch.rand(6, 4).softmax(-1)
    loss = ClassificationLoss(multi_label=False)
    parts = [
        loss({"logits": logits[part]}, targets[part], num_items_in_batch=24) for part in (slice(0, 5), slice(5, 6))
    ]
    torch.testing.assert_close(sum(parts), torch.nn.functional.cross_entropy(logits, targets))


def test_balanced_weights_give_each_label_the_same_say():
    weights = balanced_label_weights([0, 0, 0, 1], num_labels=2, multi_label=False)
    torch.testing.assert_close(weights, torch.tensor([4 / 6, 2.0]))
    assert (weights * torch.tensor([3, 1])).sum() == pytest.approx(4)


def test_metrics_agree_with_hand_counts_and_need_no_network(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    logits = np.array([[2.0, 1.0], [2.0, 1.0], [0.0, 1.0], [0.0, 1.0]])
    scores = single_label_metrics(EvalPrediction(logits, np.array([0, 1, 1, 1])))
    assert scores["accuracy"] == 0.75
    assert scores["macro_f1"] == pytest.approx((2 / 3 + 0.8) / 2)
    tags = np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
    ranked = np.array([[2.0, -1.0], [2.0, 0.5], [0.0, 1.0], [0.0, 0.1]])  # label 1: right, wrong, right
    assert multi_label_metrics(EvalPrediction(ranked, tags))["mean_average_precision"] == pytest.approx(
        (1 + (1 + 2 / 3) / 2) / 2
    )


def test_a_crop_is_a_part_of_the_clip_and_a_shift_only_rotates_it():
    clip = np.arange(RATE, dtype=np.float32)
    crop = augment(clip, RATE, AugmentationArguments(max_length_seconds=0.25))
    assert len(crop) == RATE // 4 and (np.diff(crop) == 1).all()
    shifted = augment(clip, RATE, AugmentationArguments(random_shift_seconds=0.2))
    start = int(shifted[0])
    np.testing.assert_array_equal(shifted, np.roll(clip, -start))
    assert min(start, RATE - start) <= 0.2 * RATE


def test_a_gain_stays_within_its_decibels():
    clip = np.ones(100, dtype=np.float32)
    gains = [augment(clip, RATE, AugmentationArguments(random_gain_db=6.0))[0] for _ in range(50)]
    assert 10 ** (-6 / 20) - 1e-6 <= min(gains) < max(gains) <= 10 ** (6 / 20) + 1e-6


def test_mixup_mixes_clips_of_any_length_and_their_targets_alike():
    clips = [np.random.default_rng(i).normal(size=n).astype(np.float32) for i, n in enumerate((300, 500, 700))]
    mixed, targets = mixup(clips, np.eye(3, dtype=np.float32), alpha=0.5)
    assert [len(clip) for clip in mixed] == [300, 500, 700]
    np.testing.assert_allclose(targets.sum(-1), 1, rtol=1e-6)
    assert (targets.argmax(-1) == np.arange(3)).all()
    assert all(clip.dtype == np.float32 and np.isfinite(clip).all() for clip in mixed)


def test_repeatable_augmentation_follows_the_seed_that_trainer_sets():
    clip, args = np.arange(RATE, dtype=np.float32), AugmentationArguments(max_length_seconds=0.5, random_gain_db=3)
    torch.manual_seed(1)
    first = augment(clip, RATE, args)
    torch.manual_seed(1)
    np.testing.assert_array_equal(augment(clip, RATE, args), first)


def test_batch_norm_statistics_are_those_of_the_model_as_it_is_now():
    clips = [{"input_values": torch.randn(3200), "labels": 0} for _ in range(8)]
    config = hear_hf.HEARConfig(hidden_dropout=0, activation_dropout=0, attention_dropout=0, task_dropout=0)
    config.update_from_string(TINY)
    model = hear_hf.HEARForAudioClassification(config)
    stack = torch.stack([clip["input_values"] for clip in clips])
    BatchNormCalibration(clips, lambda batch: {"input_values": stack, "labels": None}, 2).calibrate(model, 4)
    with torch.no_grad():
        dense = model.classifier.dense(model.hear(stack).pooler_output)
    torch.testing.assert_close(model.classifier.batch_norm.running_mean, dense.mean(0), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(model.classifier.batch_norm.running_var, dense.var(0), atol=1e-5, rtol=1e-4)


def test_a_crop_that_the_model_cannot_read_is_refused_before_the_first_step():
    shortest = AugmentationArguments(max_length_seconds=201 / RATE)
    assert len(augment(np.zeros(RATE, np.float32), RATE, shortest)) == 201
    with pytest.raises(ValueError, match=r"must be at least 0\.0126, .* found: 0\.01\. Give seconds"):
        AugmentationArguments(max_length_seconds=0.01)
