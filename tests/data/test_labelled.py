"""Decoding of single clips against what soundfile wrote, and each source of labelled clips against its files."""

import io
import json
import sys
from collections import Counter
from itertools import chain
from types import SimpleNamespace

import datasets
import numpy as np
import pandas as pd
import pytest
import soundfile
import torch
from datasets import Audio, ClassLabel, Dataset, DatasetDict, List
from transformers import HfArgumentParser

from hear_hf.data import decoding, labelled, sources
from hear_hf.data.decoding import decode_audio
from hear_hf.data.labelled import DataArguments, load_labelled_audio


def tone(seconds=0.1, sampling_rate=16000, frequency=440.0):
    return 0.5 * np.sin(2 * np.pi * frequency * np.arange(int(seconds * sampling_rate)) / sampling_rate)


def encode(samples, sampling_rate=16000, **options):
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, sampling_rate, **{"format": "WAV", **options})
    return buffer.getvalue()


def write_clips(folder, num_clips):
    folder.mkdir(parents=True)
    for index in range(num_clips):
        (folder / f"{index}.wav").write_bytes(encode(tone(0.02)))


def write_table(folder, rows, name="clips.csv", **columns):
    """A CSV of `rows` of (path, label), with the clips beside it."""
    folder.mkdir(exist_ok=True)
    for path, _ in rows:
        (folder / path).write_bytes(encode(tone(0.02)))
    table = pd.DataFrame({"audio": [path for path, _ in rows], "label": [label for _, label in rows], **columns})
    table.to_csv(folder / name, index=False)
    return str(folder / name)


def rows(labels):
    return [(f"{index}.wav", label) for index, label in enumerate(labels)]


def label_names(dataset):
    feature = dataset.features["label"]
    if isinstance(feature, List):
        return [[feature.feature.names[index] for index in clip] for clip in dataset["label"]]
    return [feature.names[index] for index in dataset["label"]]


def paths(dataset):
    return [clip["path"] for clip in dataset["audio"]]


@pytest.fixture(autouse=True)
def own_cache_and_no_torchcodec(tmp_path_factory, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("cache"))
    monkeypatch.setitem(sys.modules, "torchcodec", None)


# Decoding


@pytest.mark.parametrize("options", [{"format": "WAV"}, {"format": "FLAC"}, {"format": "WAV", "subtype": "FLOAT"}])
def test_lossless_bytes_decode_to_the_samples_written(options):
    samples = decode_audio({"bytes": encode(tone(), **options), "path": None}, 16000)
    assert samples.dtype == np.float32
    np.testing.assert_allclose(samples, tone(), atol=1 / 2**15)


@pytest.mark.parametrize("options", [{"format": "OGG", "subtype": "VORBIS"}, {"format": "OGG", "subtype": "OPUS"}])
def test_lossy_bytes_decode_to_nearly_the_samples_written(options):
    samples = decode_audio({"bytes": encode(tone(0.5), **options), "path": "a.ogg"}, 16000)
    assert np.corrcoef(samples[: len(tone(0.5))], tone(0.5))[0, 1] > 0.99


def test_mp3_decodes_with_the_length_of_the_clip():
    samples = decode_audio({"bytes": encode(tone(1.0), format="MP3"), "path": "a.mp3"}, 16000)
    assert abs(len(samples) / 16000 - 1.0) < 0.1
    assert 0.4 < np.abs(samples).max() < 0.6


def test_8_bit_wav_is_centred_and_scaled():
    samples = decode_audio({"bytes": encode(tone(), subtype="PCM_U8"), "path": None}, 16000)
    np.testing.assert_allclose(samples, tone(), atol=1 / 2**7)


@pytest.mark.parametrize("as_path", [str, lambda path: path, lambda path: {"bytes": None, "path": str(path)}])
def test_a_path_decodes_as_its_bytes(tmp_path, as_path):
    (tmp_path / "a.wav").write_bytes(encode(tone()))
    np.testing.assert_array_equal(
        decode_audio(as_path(tmp_path / "a.wav"), 16000), decode_audio({"bytes": encode(tone()), "path": None}, 16000)
    )


def test_stereo_is_averaged_over_channels():
    stereo = np.stack([tone(), np.zeros_like(tone())], axis=1)  # (num_samples, num_channels)
    samples = decode_audio({"bytes": encode(stereo), "path": None}, 16000)
    np.testing.assert_allclose(samples, tone() / 2, atol=1 / 2**15)


def test_44100_hz_is_resampled_and_keeps_its_pitch():
    samples = decode_audio({"bytes": encode(tone(1.0, 44100, 1000.0), 44100), "path": None}, 16000)
    assert len(samples) == 16000
    assert np.abs(np.fft.rfft(samples)).argmax() == 1000


@pytest.mark.parametrize("axis", [0, 1])
def test_array_channels_may_come_first_or_last(axis):
    array = np.stack([tone(), 3 * tone() / 5], axis=axis)
    samples = decode_audio({"array": array, "sampling_rate": 16000}, 16000)
    np.testing.assert_allclose(samples, 0.8 * tone(), atol=1e-6)


def test_an_integer_array_is_scaled_by_its_range():
    array = np.round(tone() * 2**15).astype(np.int16)
    samples = decode_audio({"array": array, "sampling_rate": 16000}, 16000)
    np.testing.assert_allclose(samples, tone(), atol=1 / 2**15)


def test_a_bfloat16_tensor_is_read():
    clip = torch.from_numpy(tone()).bfloat16()
    decoded = decode_audio({"array": clip, "sampling_rate": 16_000}, 16_000)
    np.testing.assert_array_equal(decoded, clip.float().numpy())


@pytest.mark.parametrize(
    ("clip", "message"),
    [
        ({"array": np.zeros(900)}, "`sampling_rate` must be a number of Hz beside `array`, found: None"),
        ({"array": np.zeros(900), "sampling_rate": "16000"}, "must be a number of Hz beside `array`, found: '16000'"),
        ({"array": np.zeros((9, 2, 900)), "sampling_rate": 16_000}, r"found: float64 of shape \(9, 2, 900\)"),
        ({"array": np.zeros(900, np.uint8), "sampling_rate": 16_000}, "floats or signed integers.* found: uint8"),
    ],
)
def test_an_array_that_may_be_misread_is_refused(clip, message):
    with pytest.raises(ValueError, match=message):
        decode_audio(clip, 16_000)


def decoder_of(data: torch.Tensor, rate: int, seconds: float = 1.0) -> SimpleNamespace:
    head = SimpleNamespace(sample_rate=rate, num_channels=len(data), duration_seconds_from_header=seconds)
    head.begin_stream_seconds_from_header = None

    def read(stop_seconds: float) -> SimpleNamespace:
        return SimpleNamespace(data=data[:, : int(stop_seconds * rate)], sample_rate=rate)

    return SimpleNamespace(metadata=head, get_all_samples=None, get_samples_played_in_range=read)


def test_a_torchcodec_decoder_is_averaged_and_resampled():
    data = torch.from_numpy(np.stack([tone(1.0, 8000), np.zeros(8000)]))  # (num_channels, num_samples)
    decoder = decoder_of(data, 8000)
    samples = decode_audio(decoder, 16000)
    assert len(samples) == 16000 and samples.dtype == np.float32
    np.testing.assert_allclose(samples[500:-500], tone(1.0)[500:-500] / 2, atol=1e-3)


@pytest.mark.parametrize(("rate", "seconds"), [(1, 1.0), (2**31 - 1, 1.0), (48_000, 1e6)])
def test_a_torchcodec_decoder_of_an_absurd_rate_or_length_is_refused_before_it_decodes(rate, seconds):
    decoder = decoder_of(torch.zeros(8, 10), rate, seconds)
    decoder.get_samples_played_in_range = lambda stop_seconds: pytest.fail("decoded, in place of refused")
    with pytest.raises(ValueError, match=f"the clip must .* found .*{rate} Hz"):
        decode_audio(decoder, 16000)


def test_a_torchcodec_decoder_that_declares_no_length_decodes_no_more_than_is_held(monkeypatch):
    monkeypatch.setattr(decoding, "MAX_DECODED", 1000)
    decoder = decoder_of(torch.zeros(2, 100_000), 8000, seconds=None)
    with pytest.raises(ValueError, match="the clip must hold at most 1000 numbers .* found 1 s of 2 channels"):
        decode_audio(decoder, 16000)


def test_torchcodec_reads_what_soundfile_cannot(monkeypatch):
    data = torch.from_numpy(tone()).unsqueeze(0)
    decoder = decoder_of(data, 16000)
    decoders = SimpleNamespace(AudioDecoder=lambda source: decoder if source == b"some m4a" else None)
    monkeypatch.setitem(sys.modules, "torchcodec", SimpleNamespace(decoders=decoders))
    monkeypatch.setitem(sys.modules, "torchcodec.decoders", decoders)
    np.testing.assert_allclose(decode_audio({"bytes": b"some m4a", "path": "a.m4a"}, 16000), tone(), atol=1e-6)


def test_floats_beyond_full_scale_stay_as_they_are():
    content = encode((5 * tone()).astype(np.float32), subtype="FLOAT")
    for audio in ({"array": 5 * tone(), "sampling_rate": 16000}, {"bytes": content, "path": None}):
        np.testing.assert_allclose(decode_audio(audio, 16000), 5 * tone(), atol=1e-6)


def test_an_unreadable_file_is_named_with_what_it_begins_with(tmp_path):
    (tmp_path / "notes.wav").write_text("these are notes")
    with pytest.raises(ValueError, match=r"notes\.wav must be audio .* begins b'these are no'.* install torchcodec"):
        decode_audio(tmp_path / "notes.wav", 16000)


def test_a_missing_file_is_named():
    with pytest.raises(FileNotFoundError, match=r"nowhere\.wav must be an audio file"):
        decode_audio({"bytes": None, "path": "nowhere.wav"}, 16000)


@pytest.mark.parametrize(
    ("array", "found"), [([], "no samples"), ([0.0, np.nan], "peak of nan"), ([0.0, 20000.0], "peak of 20000")]
)
def test_values_that_are_no_sound_are_an_error(array, found):
    with pytest.raises(ValueError, match=f"finite samples in .* found .*{found}"):
        decode_audio({"array": np.array(array), "sampling_rate": 16000}, 16000)


def test_an_entry_of_nothing_is_an_error():
    with pytest.raises(ValueError, match="must have `bytes`, a `path` or an `array`"):
        decode_audio({"bytes": None, "path": None}, 16000)


# Folders


def test_a_folder_of_class_folders_is_split_in_train_and_validation(tmp_path):
    write_clips(tmp_path / "dog", 10)
    write_clips(tmp_path / "cat", 20)
    splits = load_labelled_audio(DataArguments(data_dir=str(tmp_path)))
    assert splits["train"].features["label"].names == ["cat", "dog"]
    assert {split: sorted(label_names(dataset)) for split, dataset in splits.items()} == {
        "train": ["cat"] * 18 + ["dog"] * 9,
        "validation": ["cat"] * 2 + ["dog"],
    }


def test_a_loaded_clip_has_the_label_of_its_folder_and_decodes(tmp_path):
    write_clips(tmp_path / "dog", 3)
    write_clips(tmp_path / "cat", 3)
    train = load_labelled_audio(DataArguments(data_dir=str(tmp_path)))["train"]
    for clip, name in zip(train["audio"], label_names(train), strict=True):
        assert clip["path"].startswith(str(tmp_path / name))
        assert len(decode_audio(clip, 16000)) == 320


@pytest.mark.parametrize("name", ["validation", "valid", "val", "dev", "eval"])
def test_split_folders_are_taken_as_they_are(tmp_path, name):
    for split, num_clips in (("train", 3), (name, 2), ("test", 1)):
        write_clips(tmp_path / split / "dog", num_clips)
        write_clips(tmp_path / split / "cat", num_clips)
    splits = load_labelled_audio(DataArguments(data_dir=str(tmp_path)))
    assert {split: len(dataset) for split, dataset in splits.items()} == {"train": 6, "validation": 4, "test": 2}


def test_train_may_be_a_class(tmp_path):
    write_clips(tmp_path / "train", 4)
    write_clips(tmp_path / "car", 4)
    splits = load_labelled_audio(DataArguments(data_dir=str(tmp_path)))
    assert splits["train"].features["label"].names == ["car", "train"]


def test_files_that_are_no_audio_and_hidden_ones_are_skipped(tmp_path):
    write_clips(tmp_path / "dog", 2)
    write_clips(tmp_path / "cat", 2)
    for name in ("README.txt", "._0.wav", ".DS_Store"):  # the last two as macOS leaves them
        (tmp_path / "dog" / name).write_text("no sound")
    (tmp_path / ".git").mkdir()
    splits = load_labelled_audio(DataArguments(data_dir=str(tmp_path)))
    assert len(splits["train"]) + len(splits["validation"]) == 4


def test_a_missing_folder_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="must be a folder .* found none at .*nowhere"):
        load_labelled_audio(DataArguments(data_dir=str(tmp_path / "nowhere")))


def test_a_folder_without_class_folders_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="found no sub-folder"):
        load_labelled_audio(DataArguments(data_dir=str(tmp_path)))


def test_an_empty_class_folder_is_named(tmp_path):
    write_clips(tmp_path / "dog", 2)
    (tmp_path / "cat").mkdir()
    with pytest.raises(ValueError, match="must hold audio files, found none in .*cat"):
        load_labelled_audio(DataArguments(data_dir=str(tmp_path)))


@pytest.mark.parametrize("extra", [["docs"], ["val", "dev"]])
def test_an_unknown_or_second_split_folder_is_named(tmp_path, extra):
    for split in ("train", *extra):
        write_clips(tmp_path / split / "dog", 1)
    with pytest.raises(ValueError, match=r"must hold only validation/.*Move or rename (docs|val)/"):
        load_labelled_audio(DataArguments(data_dir=str(tmp_path)))


def test_a_single_class_is_an_error(tmp_path):
    write_clips(tmp_path / "dog", 4)
    with pytest.raises(ValueError, match=r"at least two classes, found: \['dog'\]"):
        load_labelled_audio(DataArguments(data_dir=str(tmp_path)))


def test_nothing_is_held_out_where_all_clips_are_wanted(tmp_path):
    for label in ("dog", "cat"):
        write_clips(tmp_path / label, 1)
    splits = load_labelled_audio(DataArguments(data_dir=str(tmp_path)), hold_out=False)
    assert set(splits) == {"train"} and len(splits["train"]) == 2


def test_a_single_class_loads_where_one_is_enough(tmp_path):
    write_clips(tmp_path / "dog", 4)
    splits = load_labelled_audio(DataArguments(data_dir=str(tmp_path)), hold_out=False, min_classes=1)
    assert splits["train"].features["label"].names == ["dog"]


# Tables


def test_csv_paths_are_relative_to_the_csv(tmp_path):
    train = write_table(tmp_path / "a", rows(["x", "y"]))
    validation = write_table(tmp_path / "b", rows(["y"]))
    splits = load_labelled_audio(DataArguments(train_file=[train], validation_file=[validation]))
    assert paths(splits["train"]) == [str(tmp_path / "a" / "0.wav"), str(tmp_path / "a" / "1.wav")]
    assert paths(splits["validation"]) == [str(tmp_path / "b" / "0.wav")]
    assert splits["validation"]["label"][:] == [1]


def test_several_files_make_one_split(tmp_path):
    files = [write_table(tmp_path / name, rows(["x", "y"])) for name in ("a", "b")]
    splits = load_labelled_audio(DataArguments(train_file=files, validation_file=files[:1]))
    assert label_names(splits["train"]) == ["x", "y", "x", "y"]


@pytest.mark.parametrize("suffix", [".tsv", ".json", ".jsonl", ".parquet"])
def test_other_tables_load_as_the_csv_does(tmp_path, suffix):
    csv = write_table(tmp_path, rows(["x", "y", "x"]))
    table, other = pd.read_csv(csv), str(tmp_path / f"other{suffix}")
    write = {
        ".tsv": lambda: table.to_csv(other, sep="\t", index=False),
        ".json": lambda: table.to_json(other, orient="records"),
        ".jsonl": lambda: table.to_json(other, orient="records", lines=True),
        ".parquet": lambda: table.to_parquet(other),
    }
    write[suffix]()
    of_csv, of_other = (
        load_labelled_audio(DataArguments(train_file=[path], validation_file=[path]))["train"] for path in (csv, other)
    )
    assert of_other.features == of_csv.features
    assert of_other.to_dict() == of_csv.to_dict()


def test_csv_labels_are_text(tmp_path):
    file = write_table(tmp_path, rows(["none", "NA", "01"]))
    splits = load_labelled_audio(DataArguments(train_file=[file], validation_file=[file]))
    assert splits["train"].features["label"].names == ["01", "NA", "none"]


def test_numbers_are_sorted_as_numbers(tmp_path):
    file = write_table(tmp_path, rows(["10", "9", "0"]))
    splits = load_labelled_audio(DataArguments(train_file=[file], validation_file=[file]))
    assert splits["train"].features["label"].names == ["0", "9", "10"]
    assert splits["train"]["label"][:] == [2, 1, 0]


def hub_like(labels, names, split="train", **columns):
    """Clips stored in the table, as on the Hub."""
    clips = [{"bytes": encode(tone(0.02)), "path": f"{split}{index}.wav"} for index in range(len(labels))]
    dataset = Dataset.from_dict({"audio": clips, "label": labels, **columns})
    return dataset.cast_column("audio", Audio(sampling_rate=16000, decode=False)).cast_column(
        "label", List(ClassLabel(names=names)) if isinstance(labels[0], list) else ClassLabel(names=names)
    )


def test_hub_parquet_keeps_its_names_and_bytes(tmp_path):
    hub_like([0, 1, 0], ["zebra", "ant"]).to_parquet(tmp_path / "train.parquet")
    file = str(tmp_path / "train.parquet")
    train = load_labelled_audio(DataArguments(train_file=[file], validation_file=[file]))["train"]
    assert train.features["label"].names == ["zebra", "ant"]
    assert label_names(train) == ["zebra", "ant", "zebra"]
    assert len(decode_audio(train[0]["audio"], 16000)) == 320


def test_splits_that_number_their_classes_differently_agree_by_name(tmp_path):
    hub_like([0, 1], ["zebra", "ant"]).to_parquet(tmp_path / "train.parquet")
    hub_like([0, 1], ["ant", "zebra"]).to_parquet(tmp_path / "validation.parquet")
    files = {f"{split}_file": [str(tmp_path / f"{split}.parquet")] for split in ("train", "validation")}
    splits = load_labelled_audio(DataArguments(**files))
    assert splits["validation"].features == splits["train"].features
    assert label_names(splits["validation"]) == ["ant", "zebra"]


def test_named_columns_take_the_place_of_others(tmp_path):
    file = write_table(tmp_path, rows(["x", "y"]), category=["p", "q"])
    arguments = DataArguments(train_file=[file], validation_file=[file], label_column_name="category")
    splits = load_labelled_audio(arguments)
    assert splits["train"].column_names == ["audio", "label"]
    assert splits["train"].features["label"].names == ["p", "q"]


def test_a_missing_column_names_those_there_are(tmp_path):
    file = write_table(tmp_path, rows(["x", "y"]))
    with pytest.raises(ValueError, match=r"must have the columns \['sound'\], found: \['audio', 'label'\]"):
        load_labelled_audio(DataArguments(train_file=[file], audio_column_name="sound"))
    with pytest.raises(ValueError, match=r"\['speaker'\], found: .*--group_column"):
        load_labelled_audio(DataArguments(train_file=[file], group_column="speaker"))


def test_a_path_that_leads_nowhere_is_named_and_its_clip_skipped(tmp_path, caplog):
    file = write_table(tmp_path, rows(["x", "y"] * 10))
    (tmp_path / "1.wav").unlink()
    splits = load_labelled_audio(DataArguments(train_file=[file]))
    assert sum(map(len, splits.values())) == 19 and "Skipped 1 of 20 clips" in caplog.text
    assert f"{tmp_path / '1.wav'}: must be an audio file, found none" in caplog.text
    with pytest.raises(ValueError, match=r"found 1 of 20 read:\n.*1\.wav: must be an audio file, found none"):
        load_labelled_audio(DataArguments(train_file=[file], max_unusable_share=0.04))


def test_a_table_none_of_whose_paths_leads_to_a_file_is_refused_at_once(tmp_path):
    file = write_table(tmp_path, rows(["x", "y"]))
    for clip in tmp_path.glob("*.wav"):
        clip.unlink()
    with pytest.raises(ValueError, match=r"found no file; 2 were tried, the first .*0\.wav. Move the table beside"):
        load_labelled_audio(DataArguments(train_file=[file]))


def test_a_column_that_cannot_be_audio_is_an_error(tmp_path):
    (tmp_path / "train.json").write_text(json.dumps([{"audio": 5, "label": "x"}]))
    with pytest.raises(ValueError, match="'audio' must hold paths, bytes or structs of both, found Value.'int64'"):
        load_labelled_audio(DataArguments(train_file=[str(tmp_path / "train.json")]))


def test_a_label_that_only_validation_has_is_named(tmp_path):
    train, validation = write_table(tmp_path, rows(["x", "y"])), write_table(tmp_path, rows(["z"]), "validation.csv")
    with pytest.raises(
        ValueError, match=r"validation split must have only labels of the train .* found also: \['z'\]"
    ):
        load_labelled_audio(DataArguments(train_file=[train], validation_file=[validation]))


def test_a_clip_without_a_label_is_an_error(tmp_path):
    file = write_table(tmp_path, rows(["x", "y", ""]))
    with pytest.raises(ValueError, match="found 1 of 3 in the train split without"):
        load_labelled_audio(DataArguments(train_file=[file]))


def test_a_fractional_label_is_an_error(tmp_path):
    (tmp_path / "a.wav").write_bytes(encode(tone(0.02)))
    (tmp_path / "train.json").write_text(json.dumps([{"audio": "a.wav", "label": 0.5}]))
    with pytest.raises(ValueError, match="Labels must be strings, integers or lists of them, found .*float64"):
        load_labelled_audio(DataArguments(train_file=[str(tmp_path / "train.json")]))


@pytest.mark.parametrize("name", ["missing.csv", "clips.txt"])
def test_a_table_that_cannot_be_read_is_named(tmp_path, name):
    (tmp_path / "clips.txt").write_text("audio,label")
    with pytest.raises(ValueError, match=f"{name}' must lead to files that end in .* found: (no file|.*clips.txt)"):
        load_labelled_audio(DataArguments(train_file=[str(tmp_path / name)]))


def test_a_table_without_rows_is_an_error(tmp_path):
    train, empty = write_table(tmp_path, rows(["x", "y"])), write_table(tmp_path, [], "empty.csv")
    with pytest.raises(ValueError, match=r"empty\.csv must hold clips, found none"):
        load_labelled_audio(DataArguments(train_file=[train], test_file=[empty]))


def test_files_of_one_split_with_different_columns_are_an_error(tmp_path):
    files = [write_table(tmp_path / "a", rows(["x"])), write_table(tmp_path / "b", rows(["y"]), fold=["1"])]
    with pytest.raises(ValueError, match="must have the same columns"):
        load_labelled_audio(DataArguments(train_file=files))


# Several labels a clip


@pytest.mark.parametrize(
    ("labels", "multi_label"),
    [(["dog;cat", "cat", ""], None), (["dog; cat", "cat", ""], True), (["dog,cat", "cat", ""], True)],
)
def test_joined_names_are_several_labels(tmp_path, labels, multi_label):
    file = write_table(tmp_path, rows(labels))
    splits = load_labelled_audio(DataArguments(train_file=[file], validation_file=[file], multi_label=multi_label))
    assert splits["train"].features["label"] == List(ClassLabel(names=["cat", "dog"]))
    assert label_names(splits["train"]) == [["dog", "cat"], ["cat"], []]


def test_commas_belong_to_names_where_semicolons_separate(tmp_path):
    file = write_table(tmp_path, rows(["Speech, female;Music", "Music"]))
    splits = load_labelled_audio(DataArguments(train_file=[file], validation_file=[file], multi_label=True))
    assert splits["train"].features["label"].feature.names == ["Music", "Speech, female"]


def test_a_comma_does_not_separate_unless_asked(tmp_path):
    file = write_table(tmp_path, rows(["Speech, female", "Music"]))
    splits = load_labelled_audio(DataArguments(train_file=[file], validation_file=[file]))
    assert splits["train"].features["label"].names == ["Music", "Speech, female"]


def test_lists_are_several_labels(tmp_path):
    (tmp_path / "a.wav").write_bytes(encode(tone(0.02)))
    clips = [{"audio": "a.wav", "label": label} for label in (["dog", "cat", "dog"], [], ["cat"])]
    (tmp_path / "train.jsonl").write_text("\n".join(map(json.dumps, clips)))
    file = str(tmp_path / "train.jsonl")
    splits = load_labelled_audio(DataArguments(train_file=[file], validation_file=[file]))
    assert label_names(splits["train"]) == [["dog", "cat"], [], ["cat"]]


def test_lists_of_declared_classes_keep_their_names(tmp_path):
    hub_like([[1, 0], [1]], ["zebra", "ant, red"]).to_parquet(tmp_path / "train.parquet")
    file = str(tmp_path / "train.parquet")
    splits = load_labelled_audio(DataArguments(train_file=[file], validation_file=[file], multi_label=True))
    assert label_names(splits["train"]) == [["ant, red", "zebra"], ["ant, red"]]


def test_a_single_label_becomes_a_list_when_several_are_asked_for(tmp_path):
    hub_like([1, 0], ["zebra", "ant"]).to_parquet(tmp_path / "train.parquet")
    file = str(tmp_path / "train.parquet")
    splits = load_labelled_audio(DataArguments(train_file=[file], validation_file=[file], multi_label=True))
    assert label_names(splits["train"]) == [["ant"], ["zebra"]]


# The Hub


@pytest.fixture
def hub(monkeypatch):
    """A Hub with one dataset: the splits that a test puts in."""
    splits = DatasetDict()
    monkeypatch.setattr(sources, "load_own", lambda name, config, revision: splits)
    return splits


def test_a_hub_dataset_gives_its_splits(hub):
    for split in ("train", "validation", "test"):
        hub[split] = hub_like([0, 1], ["zebra", "ant"], split)
    splits = load_labelled_audio(DataArguments(dataset_name="someone/animals"))
    assert {split: paths(dataset)[0] for split, dataset in splits.items()} == {
        split: f"{split}0.wav" for split in ("train", "validation", "test")
    }
    assert splits["test"].features["audio"] == Audio(decode=False)


def test_a_hub_dataset_may_call_its_splits_otherwise(hub):
    for split in ("fold1", "dev", "test"):
        hub[split] = hub_like([0, 1], ["zebra", "ant"], split)
    arguments = DataArguments(dataset_name="someone/animals", train_split_name="fold1", test_split_name="")
    splits = load_labelled_audio(arguments)
    assert {split: paths(dataset)[0] for split, dataset in splits.items()} == {
        "train": "fold10.wav",
        "validation": "dev0.wav",
    }


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_a_split_that_is_not_there_is_named_with_those_there_are(hub, split):
    hub["train"] = hub_like([0, 1], ["zebra", "ant"])
    arguments = DataArguments(dataset_name="someone/animals", **{f"{split}_split_name": "fold9"})
    with pytest.raises(ValueError, match=rf"'fold9', found: \['train'\].*--{split}_split_name"):
        load_labelled_audio(arguments)


def test_an_unpublished_label_is_an_error(hub):
    hub["train"], hub["test"] = hub_like([0, 1, 0, 1], ["zebra", "ant"]), hub_like([-1, -1], ["zebra", "ant"])
    with pytest.raises(ValueError, match="found 2 of 2 in the test split without"):
        load_labelled_audio(DataArguments(dataset_name="someone/animals"))


def test_a_dataset_of_loose_files_names_torchcodec_and_a_way_around(monkeypatch):
    def load_own(*args, **kwargs):
        raise ImportError("To support encoding audio data, please install 'torchcodec'.")

    monkeypatch.setattr(sources, "load_own", load_own)
    with pytest.raises(ImportError, match="--dataset_revision refs/convert/parquet"):
        load_labelled_audio(DataArguments(dataset_name="someone/animals"))


# The automatic validation split


def split_of(hub, labels, seed=0, names=("a", "b", "c"), groups=None, **arguments):
    columns = {} if groups is None else {"speaker": groups}
    hub["train"] = hub_like(labels, list(names), **columns)
    if groups is not None:
        arguments["group_column"] = "speaker"
    return load_labelled_audio(DataArguments(dataset_name="someone/animals", **arguments), seed)


def test_validation_and_train_share_no_clip_and_lose_none(hub):
    splits = split_of(hub, [0, 1, 2] * 10, validation_share=0.3)
    assert len(splits["validation"]) == 9
    assert sorted(paths(splits["train"]) + paths(splits["validation"])) == sorted(paths(hub["train"]))


def test_the_seed_decides_the_validation_split(hub):
    first, again, other = (paths(split_of(hub, [0, 1] * 20, seed)["validation"]) for seed in (0, 0, 1))
    assert first == again != other


def test_each_class_keeps_a_clip_in_train_however_few(hub):
    splits = split_of(hub, [0] + [1] * 2 + [2] * 3, validation_share=0.9)
    assert label_names(splits["train"]) == ["a", "b", "c"]
    assert label_names(splits["validation"]) == ["b", "c", "c"]


def test_each_label_keeps_a_clip_in_train_with_several_a_clip(hub):
    splits = split_of(hub, [[0, 1], [0, 2], [1, 2], [0], [], [1], [2]] * 2, validation_share=0.8)
    assert len(splits["validation"]) >= 7
    assert set().union(*label_names(splits["train"])) == {"a", "b", "c"}


def test_a_group_is_never_divided(hub):
    groups = [f"speaker{index // 6}" for index in range(60)]
    labels = [(index + index // 6) % 3 for index in range(60)]
    splits = split_of(hub, labels, groups=groups, validation_share=0.2)
    group_of = dict(zip(paths(hub["train"]), groups, strict=True))
    train, validation = ({group_of[path] for path in paths(splits[split])} for split in ("train", "validation"))
    assert not train & validation
    assert len(validation) == 2


def test_a_group_that_alone_holds_a_class_stays_in_train(hub):
    for seed in range(5):
        splits = split_of(hub, [0, 1, 0, 1, 2, 2], seed, groups=["x", "x", "y", "y", "z", "z"])
        assert "c" in label_names(splits["train"])


def test_no_way_to_split_is_an_error(hub):
    with pytest.raises(ValueError, match="must leave each class a clip in train, found no way among 1 groups"):
        split_of(hub, [0, 1, 2] * 4, groups=["x"] * 12)
    with pytest.raises(ValueError, match="found no way among 3 clips"):
        split_of(hub, [0, 1, 2])


def test_a_maximum_draws_from_all_classes(hub):
    splits = split_of(hub, [0] * 50 + [1] * 50, max_train_samples=20, max_eval_samples=4, names=["a", "b"])
    assert (len(splits["train"]), len(splits["validation"])) == (20, 4)
    assert set(label_names(splits["train"])) == {"a", "b"}


def test_a_maximum_per_class_draws_so_many_of_each_and_none_of_validation(hub):
    labels = [0] * 50 + [1] * 20 + [2] * 3
    splits = split_of(hub, labels, clips_per_class=5, names=["a", "b", "c"])
    assert Counter(label_names(splits["train"])) == {"a": 5, "b": 5, "c": 2}  # the third of c is in validation
    assert len(splits["validation"]) == 5 + 2 + 1
    again, other = (split_of(hub, labels, seed, clips_per_class=5, names=["a", "b", "c"]) for seed in (0, 1))
    assert paths(again["train"]) == paths(splits["train"]) != paths(other["train"])


def test_with_several_labels_a_clip_is_drawn_for_the_class_that_still_lacks_some():
    clips = Dataset.from_dict({"label": [[0], [0, 1], [1], [0], [0, 2], []] * 5})
    drawn = labelled.draw_per_class(clips, 3, np.random.default_rng(0))["label"][:]
    assert min(Counter(chain(*drawn)).values()) == 3 and [] not in drawn
    assert len(drawn) <= 3 * 3


def test_a_column_is_kept_on_request_with_the_clips_of_its_rows(tmp_path):
    table = write_table(tmp_path, rows(["a", "b"] * 10), fold=[str(index % 5) for index in range(20)])
    dataset = load_labelled_audio(DataArguments(train_file=[table]), keep_columns=("fold",))
    for split in dataset.values():
        assert split.column_names == ["audio", "fold", "label"]
        assert [str(int(clip["path"].split("/")[-1][:-4]) % 5) for clip in split["audio"]] == split["fold"][:]
    with pytest.raises(ValueError, match=r"must have the columns \['take'\]"):
        load_labelled_audio(DataArguments(train_file=[table]), keep_columns=("take",))


# Arguments


def test_no_source_means_the_spoken_digits(monkeypatch):
    digits = {split: hub_like([0, 1], ["zero", "one"], split) for split in ("train", "validation", "test")}
    monkeypatch.setattr(labelled, "spoken_digits", lambda seed: digits if seed == 3 else None)
    splits = load_labelled_audio(DataArguments(), seed=3)
    assert splits["test"].column_names == ["audio", "label"]
    assert label_names(splits["test"]) == ["zero", "one"]


def test_arguments_come_from_the_command_line():
    command = ["--train_file", "a.csv", "b.csv", "--multi_label", "--max_train_samples", "5", "--group_column", "fold"]
    (arguments,) = HfArgumentParser(DataArguments).parse_args_into_dataclasses(command)
    assert arguments == DataArguments(
        train_file=["a.csv", "b.csv"], multi_label=True, max_train_samples=5, group_column="fold"
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"data_dir": "a", "dataset_name": "b"}, "one source .* found: dataset_name, data_dir"),
        ({"test_file": ["a.csv"]}, "must come with `train_file`"),
        ({"validation_share": 1.0}, "between 0 and 1, found: 1.0"),
    ],
)
def test_arguments_that_contradict_are_an_error(arguments, message):
    with pytest.raises(ValueError, match=message):
        DataArguments(**arguments)
