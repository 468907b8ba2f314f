"""Linear probes on tiny random models and tones: what differs is found, and what is reported chose nothing."""

import json

import numpy as np
import pytest
import soundfile
import torch
from datasets import Dataset
from torch.nn.utils import parameters_to_vector
from transformers import Wav2Vec2Config, Wav2Vec2FeatureExtractor, Wav2Vec2Model

import probe
from hear_hf import HEARConfig, HEARFeatureExtractor, HEARModel
from hear_hf.arguments import parse_arguments
from hear_hf.data.labelled import DataArguments, load_labelled_audio
from hear_hf.evaluation import probing
from hear_hf.evaluation.folds import Clips, gather_clips, make_folds
from hear_hf.evaluation.frozen_encoders import FrozenEncoder
from hear_hf.evaluation.probe_reports import plot
from hear_hf.evaluation.probing import layers_to_probe, probe_layer
from helpers import SMALL

RATE = 16_000
FREQUENCIES = {"low": 200, "middle": 1000, "high": 5000}


def write_tone(path, frequency, seed):
    rng = np.random.default_rng(seed)
    time = np.arange(int(rng.uniform(0.1, 0.25) * RATE)) / RATE
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, 0.3 * np.sin(2 * np.pi * frequency * time) + 0.01 * rng.normal(size=len(time)), RATE)


def write_tones(folder, num_clips, label_of=lambda label, rng: label, seed=0):
    """Clips in class folders, each class with its tone, unless `label_of` puts them elsewhere."""
    rng = np.random.default_rng(seed)
    for label, frequency in FREQUENCIES.items():
        for i in range(num_clips):
            write_tone(folder / label_of(label, rng) / f"{label}{i}.wav", frequency, seed=100 * seed + i)
    return folder


@pytest.fixture(scope="session")
def tones(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tones")
    for seed, (split, num_clips) in enumerate({"train": 8, "validation": 4, "test": 4}.items()):
        write_tones(folder / split, num_clips, seed=seed)
    return folder


@pytest.fixture(scope="session")
def table(tmp_path_factory):
    """Tones in a table with three folds, and with one label or several."""
    folder = tmp_path_factory.mktemp("table")
    rows = ["audio,label,fold,tags"]
    for i in range(36):
        label = list(FREQUENCIES)[i % 3]
        write_tone(folder / f"{i}.wav", FREQUENCIES[label], seed=i)
        rows.append(f"{i}.wav,{label},{i % 4 % 3},{label + ';audible' if label != 'high' else label}")
    (folder / "clips.csv").write_text("\n".join(rows))
    return folder / "clips.csv"


@pytest.fixture(scope="session")
def hear(tmp_path_factory):
    torch.manual_seed(1)
    return save(tmp_path_factory.mktemp("hear"), HEARModel(HEARConfig(**SMALL)), HEARFeatureExtractor())


@pytest.fixture(scope="session")
def wav2vec2(tmp_path_factory):
    torch.manual_seed(0)
    config = Wav2Vec2Config(
        hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32, conv_dim=[16, 16],
        conv_kernel=[10, 64], conv_stride=[5, 64], num_conv_pos_embeddings=16, num_conv_pos_embedding_groups=2,
    )  # fmt: skip
    return save(tmp_path_factory.mktemp("wav2vec2"), Wav2Vec2Model(config), Wav2Vec2FeatureExtractor())


def save(folder, model, feature_extractor):
    model.save_pretrained(folder)
    feature_extractor.save_pretrained(folder)
    return str(folder)


def run(output_dir, *arguments):
    return probe.main(["--output_dir", str(output_dir), *map(str, arguments)])


def test_two_models_side_by_side_tell_tones_apart_as_table_and_files_say(hear, wav2vec2, tones, tmp_path, capsys):
    record = run(tmp_path, "--model_name_or_path", hear, wav2vec2, "--data_dir", tones)
    assert [row["model"] for row in record["results"]] == [hear, wav2vec2]
    assert all(row["score"] > 0.9 and row["num_clips"] == 48 for row in record["results"])
    assert record == json.loads((tmp_path / "probe.json").read_text()) and record["reported_on"] == "the test clips"
    lines = capsys.readouterr().out.splitlines()
    for row in record["results"]:
        (line,) = [line for line in lines if line.startswith(row["model"])]
        expected = [row["layer"], f"{row['score']:.4f}", f"{row['validation_score']:.4f}", f"{row['C'][0]:g}"]
        assert line.split()[1:5] == list(map(str, expected))
    assert (tmp_path / "probe.png").read_bytes().startswith(b"\x89PNG")


def test_labels_drawn_by_lot_are_not_found(hear, tmp_path):
    folder = write_tones(tmp_path / "clips", 24, lambda label, rng: rng.choice(list(FREQUENCIES)))
    record = run(tmp_path / "run", "--model_name_or_path", hear, "--data_dir", folder, "--num_folds", 4)
    assert record["reported_on"] == "4 folds" and len(record["results"][0]["scores"]) == 4
    assert 0.15 < record["results"][0]["score"] < 0.55


def test_without_a_test_split_the_validation_clips_are_reported_on(hear, table, tmp_path):
    record = run(tmp_path, "--model_name_or_path", hear, "--train_file", table, "--validation_share", 0.3)
    assert record["reported_on"] == "the validation clips" and record["results"][0]["score"] > 0.8


def test_each_value_of_the_fold_column_is_left_out_once(hear, table, tmp_path):
    record = run(tmp_path, "--model_name_or_path", hear, "--train_file", table, "--fold_column", "fold")
    (row,) = record["results"]
    assert len(row["scores"]) == len(row["C"]) == 3 and record["reported_on"] == "3 folds"
    assert row["score"] == pytest.approx(np.mean(row["scores"])) and row["std"] == pytest.approx(np.std(row["scores"]))
    assert row["score"] > 0.9 and row["num_clips"] == 36


def test_several_labels_a_clip_are_scored_by_mean_average_precision(hear, table, tmp_path):
    arguments = ["--train_file", table, "--label_column_name", "tags", "--num_folds", 3]
    record = run(tmp_path, "--model_name_or_path", hear, *arguments)
    assert record["metric"] == "mean_average_precision" and record["results"][0]["score"] > 0.9


def test_of_all_layers_the_best_on_the_validation_clips_is_taken(hear, tones, tmp_path):
    rows = run(tmp_path, "--model_name_or_path", hear, "--data_dir", tones, "--layer", "all", "--pooling", "mean")
    *layers, best = rows["results"]
    assert [row["layer"] for row in layers] == [0, 1, 2, 3] and best["layer"] == "best"
    (chosen,) = best["chosen_layers"]
    assert best["validation_score"] == max(row["validation_score"] for row in layers)
    assert best["scores"] == layers[chosen]["scores"]


def test_a_random_baseline_has_the_architecture_but_not_the_weights(hear, wav2vec2, monkeypatch):
    arguments = ["--model_name_or_path", hear, wav2vec2, "random", "--random_baseline", "--layer", "-1", "0"]
    args, _ = parse_arguments((probing.ProbeArguments, DataArguments), arguments)
    monkeypatch.setattr(probing, "HEARConfig", lambda: HEARConfig(**SMALL))
    encoders = [dict(probing.load_encoders(args)) for _ in range(2)]
    assert list(encoders[0]) == [hear, f"{hear}, random weights", wav2vec2, "random HEAR"]
    assert args.layer == ["-1", "0"]
    (trained, baseline, _, random), (*_, again) = (
        [parameters_to_vector(encoder.model.parameters()) for encoder in loaded.values()] for loaded in encoders
    )
    assert trained.shape == baseline.shape == random.shape
    assert not torch.equal(trained, baseline) and torch.equal(random, again)


def test_clips_that_cannot_be_decoded_are_skipped_and_counted(hear, tmp_path, caplog):
    folder = write_tones(tmp_path / "clips", 6)
    (folder / "low" / "broken.wav").write_bytes(b"no audio at all")
    record = run(tmp_path / "run", "--model_name_or_path", hear, "--data_dir", folder, "--num_folds", 3)
    assert record["results"][0]["num_clips"] == 18 and record["results"][0]["score"] > 0.8
    assert "Skipped 1 of 19 clips" in caplog.text and "broken.wav" in caplog.text


def test_clips_are_cropped_and_pooled_over_their_own_frames(hear, tmp_path):
    encoder = FrozenEncoder.from_pretrained(hear)
    long, short = np.sin(np.arange(32_000)), 0.5 * np.sin(0.3 * np.arange(4_000))
    entries = [{"array": clip.astype(np.float32), "sampling_rate": RATE} for clip in (long, short)]
    audio = Dataset.from_list([{"audio": entry} for entry in entries])
    args = probing.ProbeArguments(model_name_or_path=[hear], max_length_seconds=0.5)
    features = probing.extract_features("hear", encoder, audio, [3], args)
    for row, clip in zip(features[3], (long[:8_000], short), strict=True):
        states = encoder([clip.astype(np.float32)], RATE)[0].numpy()
        expected = np.concatenate([states.mean(0), states.max(0), states.std(0)])
        np.testing.assert_allclose(row, expected, atol=1e-4)


def test_shorter_clips_lie_in_the_middle_of_silence(hear):
    encoder = FrozenEncoder.from_pretrained(hear)
    clip = np.sin(np.arange(4_000)).astype(np.float32)
    audio = Dataset.from_list([{"audio": {"array": clip, "sampling_rate": RATE}}])
    args = probing.ProbeArguments(model_name_or_path=[hear], min_length_seconds=0.5, pooling=["mean"])
    (row,) = probing.extract_features("hear", encoder, audio, [3], args)[3]
    expected = encoder([np.pad(clip, 2_000)], RATE)[0].mean(0)
    np.testing.assert_allclose(row, expected, atol=1e-4)


# Folds


def clips(labels, splits=None, groups=None):
    labels = np.asarray(labels)
    splits = np.array(splits if splits is not None else ["train"] * len(labels))
    return Clips(None, splits, labels, None if groups is None else np.array(groups))


CASES = {
    "test split": (clips([0, 1] * 15, ["train"] * 16 + ["validation"] * 6 + ["test"] * 8), None),
    "validation split": (clips([0, 1] * 15, ["train"] * 20 + ["validation"] * 10), None),
    "folds": (clips([0, 1] * 15), 5),
    "groups": (clips([0, 1] * 15, groups=[i % 4 for i in range(30)]), None),
    "two groups": (clips([0, 1] * 15, groups=[i % 3 // 2 for i in range(30)]), None),
    "several labels": (clips([[0, 1], [1, 1], [1, 0]] * 10), 5),
    "few of a class": (clips([0] * 28 + [1] * 2), 4),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.filterwarnings("ignore:The least populated class")
def test_no_clip_is_both_trained_on_and_reported_on(case):
    data, num_folds = CASES[case]
    folds = make_folds(data, num_folds, seed=0)
    for fold in folds:
        assert not set(fold.train) & set(fold.test)
        for train, validation in fold.tuning:
            assert not set(train) & set(validation) and max(*train, *validation) < len(fold.train)
            if data.groups is not None and len(set(data.groups)) > 2:
                assert not set(data.groups[fold.train][train]) & set(data.groups[fold.train][validation])
    if num_folds or data.groups is not None:
        assert sorted(np.concatenate([fold.test for fold in folds])) == list(range(30))


@pytest.mark.parametrize("labels", [[0, 1] * 15, [[0, 1], [1, 1], [1, 0]] * 10])
@pytest.mark.parametrize("num_folds", [3, 5])
def test_a_clip_that_is_listed_again_is_never_on_both_sides(labels, num_folds):
    keys = np.arange(30) % 22  # the first eight clips are listed twice
    for fold in make_folds(clips(labels)._replace(keys=keys), num_folds, seed=0):
        assert not set(keys[fold.train]) & set(keys[fold.test]) and len(fold.train) + len(fold.test) == 30
        for train, validation in fold.tuning:
            assert not set(keys[fold.train[train]]) & set(keys[fold.train[validation]])


def test_gathered_clips_know_which_are_listed_again(tmp_path):
    for i in range(6):
        write_tone(tmp_path / f"{i}.wav", 300 + 50 * i, seed=i)
    rows = [f"{i}.wav,{'ab'[i % 2]}" for i in (0, 1, 2, 3, 4, 5, 0, 3)]
    (tmp_path / "t.csv").write_text("\n".join(["audio,label", *rows]))
    dataset = load_labelled_audio(DataArguments(train_file=[str(tmp_path / "t.csv")], validation_share=0.3))
    gathered = gather_clips(dataset, num_folds=2)
    names = [audio["path"] for audio in gathered.audio["audio"]]
    assert len(set(gathered.keys)) == 6 and len(set(zip(names, gathered.keys, strict=True))) == 6


def test_folds_follow_the_column_and_the_splits():
    folds = make_folds(CASES["groups"][0], None, seed=0)
    assert [set(fold.test % 4) for fold in folds] == [{0}, {1}, {2}, {3}]
    (fold,) = make_folds(CASES["test split"][0], None, seed=0)
    assert fold.train.tolist() == list(range(22)) and fold.test.tolist() == list(range(22, 30))
    assert [part.tolist() for part in fold.tuning[0]] == [list(range(16)), list(range(16, 22))]


def test_nothing_is_chosen_on_what_is_reported():
    rng = np.random.default_rng(0)
    data = CASES["test split"][0]
    features = rng.normal(size=(30, 6)) + data.labels[:, None]
    folds = make_folds(data, None, seed=0)
    changed, other = features.copy(), data.labels.copy()
    changed[22:], other[22:] = 1e3 * rng.normal(size=(8, 6)), 1 - other[22:]
    first, second = probe_layer(features, data.labels, folds), probe_layer(changed, other, folds)
    assert first.regularisation == second.regularisation and first.validation_scores == second.validation_scores
    assert first.scores != second.scores


# Errors


def test_layers_are_counted_from_either_end_and_once():
    assert layers_to_probe(["-1", "0", "4"], 5) == [4, 0]
    for layer in ("5", "-6", "last"):
        with pytest.raises(ValueError, match="`layer` must be 'all' or from -5 to 4"):
            layers_to_probe(["0", layer], 5)


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--pooling", "median"], "`pooling` must be some of"),
        (["--num_folds", 3, "--fold_column", "fold"], "one source, found"),
        (["--num_folds", 1], "`num_folds` must be at least 2"),
        (["--batch_size", 0], "must be above 0"),
        (["--max_length_seconds", 0], "must be above 0"),
        (["--min_length_seconds", 2, "--max_length_seconds", 1], "`min_length_seconds` between 0 and it"),
        (["--fold_column", "take"], r"must have the columns \['take'\]"),
    ],
)
def test_arguments_that_cannot_be_are_an_error(hear, table, tmp_path, arguments, message):
    with pytest.raises(ValueError, match=message):
        run(tmp_path, "--model_name_or_path", hear, "--train_file", table, *arguments)


@pytest.mark.parametrize("layers", [[0], [0, 1]])
def test_a_model_s_name_that_looks_like_a_formula_is_drawn_as_it_is(tmp_path, layers):
    rows = [{"model": "$x_$", "layer": layer, "score": 0.5, "std": 0.0} for layer in layers]
    plot(rows, "Accuracy", "$y_$", tmp_path / "probe.png")
    assert (tmp_path / "probe.png").stat().st_size > 0
