"""Annotations of sound events: what is read of each kind of file, and what becomes of events that cannot be."""

import io
import json

import numpy as np
import pytest
import soundfile
import torch
from datasets import Audio, ClassLabel, Dataset, DatasetDict

from hear_hf.data.annotated import AnnotatedDataArguments, label_names, load_annotated_audio
from hear_hf.data.annotations import Event, read_annotations
from hear_hf.data.frame_labels import frame_labels, prepare_recordings
from hear_hf.data.soundscapes import SoundscapeArguments, make_soundscapes, trimmed
from helpers import write_tone

RAVEN = (
    "Selection\tView\tChannel\tBegin Time (s)\tEnd Time (s)\tLow Freq (Hz)\tSpecies\n"
    "1\tWaveform 1\t1\t0.1\t0.3\t0\twren\n"
    "1\tSpectrogram 1\t1\t0.1\t0.3\t200\twren\n2\tSpectrogram 1\t1\t0.2\t0.4\t0\towl\n"
)


def write_recordings(folder, names=("one", "two"), seconds=1.0):
    for seed, name in enumerate(names):
        write_tone(folder / f"{name}.wav", 300 + 100 * seed, seconds, seed)


def load(**options):
    return load_annotated_audio(AnnotatedDataArguments(**options), SoundscapeArguments())


def events_of(dataset):
    """By name of the recording its events."""
    names, found = label_names(dataset), {}
    for row in dataset:
        events = [(event["start"], event["end"], names[event["label"]]) for event in row["events"]]
        found[row["audio"]["path"].rpartition("/")[2]] = events
    return found


@pytest.mark.parametrize("header", ["", "Selection\tBegin Time (s)\tEnd Time (s)\tAnnotation\n"])
def test_a_quotation_mark_that_nothing_closes_swallows_no_line(tmp_path, header):
    start = "1\t" if header else ""
    lines = [f'{start}0\t1\t"dog', f'{start}1\t2\t5" disk', f"{start}2\t3\tcat\u2028cow"]
    (tmp_path / "one.txt").write_text(header + "\n".join(lines), encoding="utf-8")
    assert [event.label for event in read_annotations(tmp_path / "one.txt")[""]] == ["dog", '5" disk', "cat\u2028cow"]


def test_a_cell_without_an_end_is_refused_by_the_file_s_name(tmp_path):
    (tmp_path / "one.txt").write_text("0\t1\t" + 200_000 * "x")
    with pytest.raises(ValueError, match="one.txt must have cells of a readable length"):
        read_annotations(tmp_path / "one.txt")


def test_audacity_s_label_track_is_read_with_and_without_frequencies(tmp_path):
    path = tmp_path / "one.txt"
    path.write_text("0.100000\t0.300000\tcat\n\\\t200.0\t900.0\n0.5\t0.5\ta dog\n", encoding="utf-8")
    assert read_annotations(path) == {"": [Event(0.1, 0.3, "cat"), Event(0.5, 0.5, "a dog")]}


def test_raven_s_selections_are_read_once_each(tmp_path):
    path = tmp_path / "one.Table.1.selections.txt"
    path.write_text(RAVEN, encoding="utf-8")
    assert read_annotations(path) == {"": [Event(0.1, 0.3, "wren"), Event(0.2, 0.4, "owl")]}


def test_raven_s_tables_of_several_recordings_say_when_each_event_is_in_its_own(tmp_path):
    path = tmp_path / "all.txt"
    header = "Selection\tBegin Time (s)\tEnd Time (s)\tBegin File\tFile Offset (s)\tCall\n"
    path.write_text(header + "1\t0.5\t1\ta.wav\t0.5\tx\n2\t60.5\t61.5\tb.wav\t0.5\ty\n", encoding="utf-8")
    assert read_annotations(path, "Call") == {"a.wav": [Event(0.5, 1, "x")], "b.wav": [Event(0.5, 1.5, "y")]}
    with pytest.raises(ValueError, match="must have a column of labels, .*--annotation_label_column"):
        read_annotations(path)


def test_dcase_s_table_is_read_with_recordings_without_events(tmp_path):
    path = tmp_path / "strong.tsv"
    path.write_text(
        "filename\tonset\toffset\tevent_label\na.wav\t0.1\t0.3\tcat\na.wav\t0.2\t0.4\tdog\nb.wav\t\t\t\n",
        encoding="utf-8",
    )
    assert read_annotations(path) == {"a.wav": [Event(0.1, 0.3, "cat"), Event(0.2, 0.4, "dog")], "b.wav": []}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("0.1\t0.2\n", r"Line 1 of .*one.txt must be `start<tab>end<tab>label`"),
        ("0.1\t0.2\tcat\nzero\t1\tcat\n", "Line 2 of .* must have times in seconds, found: 'zero'"),
        ("nan\t1\tcat\n", "Line 1 of .* must have times in seconds, found: 'nan'"),
        (
            "filename\tonset\toffset\tevent_label\na.wav\t1\t\tcat\n",
            "Line 2 of .* must have times in seconds, found: ''",
        ),
    ],
    ids=["no label", "no number", "not finite", "no end"],
)
def test_a_line_that_cannot_be_read_is_named(tmp_path, content, message):
    path = tmp_path / "one.txt"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(ValueError, match=message):
        read_annotations(path)


def test_a_folder_s_recordings_have_the_annotations_beside_them(tmp_path, caplog):
    write_recordings(tmp_path / "train", ("one", "two", "three"))
    write_recordings(tmp_path / "Validation", ("four",))
    (tmp_path / "train" / "one.txt").write_text("0.1\t0.3\towl\n", encoding="utf-8")
    (tmp_path / "train" / "two.Table.1.selections.txt").write_text(RAVEN, encoding="utf-8")
    (tmp_path / "Validation" / "four.txt").write_text("", encoding="utf-8")
    dataset = load(data_dir=str(tmp_path))
    assert label_names(dataset["train"]) == ["owl", "wren"]
    assert events_of(dataset["train"]) == {
        "one.wav": [(0.1, 0.3, "owl")],
        "two.wav": [(0.1, 0.3, "wren"), (0.2, 0.4, "owl")],
    }
    assert events_of(dataset["validation"]) == {"four.wav": []}
    assert "they have no annotations beside them: train/three.wav (1 in all)" in caplog.text


@pytest.mark.parametrize("kind", ["dcase", "structs"])
def test_tables_of_events_load_alike(tmp_path, kind):
    write_recordings(tmp_path / "audio", ("a", "b", "c"))
    events = {"a.wav": [(0.1, 0.3, "cat"), (0.2, 0.4, "dog")], "b.wav": [(0.5, 0.6, "dog")], "c.wav": []}
    if kind == "dcase":
        rows = [f"{name}\t{s}\t{e}\t{label}" for name, found in events.items() for s, e, label in found]
        table = tmp_path / "strong.tsv"
        table.write_text("\n".join(["filename\tonset\toffset\tevent_label", *rows, "c.wav\t\t\t"]), encoding="utf-8")
        options = {"audio_dir": str(tmp_path / "audio")}
    else:
        table = tmp_path / "audio" / "strong.jsonl"
        structs = [
            {"audio": name, "events": [dict(zip(("start", "end", "label"), event, strict=True)) for event in found]}
            for name, found in events.items()
        ]
        table.write_text("\n".join(map(json.dumps, structs)), encoding="utf-8")
        options = {}
    files = {"train_file": [str(table)], "validation_file": [str(table)]}
    dataset = load(**files, **options)
    assert events_of(dataset["train"]) == events_of(dataset["validation"]) == events


def test_impossible_events_are_skipped_counted_and_named(tmp_path, caplog):
    write_recordings(tmp_path)
    lines = [
        "0.1\t0.3\tcat",
        "0.2\t0.5\tcat",  # overlaps the one above
        "0.8\t1.5\tcat",  # reaches past the end
        "0.6\t0.4\tdog",  # reversed
        "2.0\t3.0\tdog",  # past the end
        "0.1\t0.2\t",  # without a label
    ]
    (tmp_path / "one.txt").write_text("\n".join(lines), encoding="utf-8")
    (tmp_path / "two.txt").write_text("0\t0.5\tcat\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"(?s)found 3 of 9 read:.*raise --max_unusable_share"):
        load(data_dir=str(tmp_path))
    caplog.clear()
    dataset = load(data_dir=str(tmp_path), max_unusable_share=0.5, validation_share=0.5)
    found = events_of(dataset["train"]) | events_of(dataset["validation"])
    assert found["one.wav"] == [(0.1, 0.5, "cat"), (0.8, 1.0, "cat")]
    for reason in (
        "one.wav: its event 'dog' must end after its start, which must not be negative, found 0.6 s to 0.4 s",
        "its event 'dog' must start before its end at 1.00 s, found 2.0 s",
        "its event from 0.1 s to 0.2 s must have a label",
        "reach past the end and end with it: 1 of 7",
        "overlap one of their label and join it: 1 of 7",
    ):
        assert reason in caplog.text, reason


def test_labels_of_another_split_are_refused(tmp_path):
    for split, label in (("train", "cat"), ("test", "dog")):
        write_recordings(tmp_path / split, (f"{split}_1", f"{split}_2"))
        for recording in (tmp_path / split).glob("*.wav"):
            recording.with_suffix(".txt").write_text(f"0.1\t0.3\t{label}\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"The test split must have only labels of the train split.*\['dog'\]"):
        load(data_dir=str(tmp_path))


def test_a_table_without_events_must_have_them_or_be_weak(tmp_path):
    write_recordings(tmp_path, "abcd")
    rows = "".join(
        f"{name}.wav,{label}\n" for name, label in zip("abcd", ("cat", "dog", "cat;dog", "dog"), strict=True)
    )
    (tmp_path / "weak.csv").write_text("audio,label\n" + rows, encoding="utf-8")
    files = {"train_file": [str(tmp_path / "weak.csv")], "validation_file": [str(tmp_path / "weak.csv")]}
    with pytest.raises(ValueError, match=r"must have the columns \['events'\].*--weak_labels"):
        load(**files)
    clips = prepare_recordings(load(**files, weak_labels=True)["train"], 16_000)
    assert [row["labels"].tolist() for row in clips] == [[1, 0], [0, 1], [1, 1], [0, 1]]


def test_a_column_of_events_must_hold_structs(tmp_path):
    write_recordings(tmp_path, "ab")
    (tmp_path / "strong.csv").write_text("audio,events\na.wav,0.1-0.2 cat\nb.wav,0.1-0.2 dog\n", encoding="utf-8")
    with pytest.raises(ValueError, match="'events' of the train split must hold lists of structs .*--events_column"):
        load(train_file=[str(tmp_path / "strong.csv")])


def test_frames_have_the_labels_of_the_events_that_hold_their_centres():
    events = [{"start": 0.0, "end": 0.045, "label": 1}, {"start": 0.086, "end": 0.087, "label": 0}]
    labels = frame_labels(events, 6, 2)  # centred at 5, 25, 45, ... ms
    assert labels[:, 1].tolist() == [1, 1, 0, 0, 0, 0]
    assert labels[:, 0].tolist() == [0, 0, 0, 0, 0, 1]  # too short to hold any


def test_a_crop_keeps_events_where_they_sound(tmp_path):
    samples = np.zeros(16_000 * 4, np.float32)
    samples[16_000:32_000] = 0.5
    soundfile.write(tmp_path / "a.wav", samples, 16_000)
    (tmp_path / "a.txt").write_text("1\t2\tcat\n", encoding="utf-8")
    (tmp_path / "b.txt").write_text("1\t2\tcat\n", encoding="utf-8")
    soundfile.write(tmp_path / "b.wav", samples, 16_000)
    recordings = prepare_recordings(load(data_dir=str(tmp_path), validation_share=0.5)["train"], 16_000, 1.5)
    for seed in range(5):
        torch.manual_seed(seed)
        row = recordings[0]
        loud = row["input_values"][:24_000].reshape(-1, 320)[:, 80] > 0.1
        assert row["labels"].shape == (75, 1)
        assert np.abs(row["labels"][:, 0] - loud).sum() <= 2


def bursts(num_clips=6):
    """Labelled clips of noise between silences."""
    rows = []
    for index in range(num_clips):
        buffer, rng = io.BytesIO(), np.random.default_rng(index)
        burst = np.zeros(8_000)
        burst[2_000:6_000] = rng.normal(size=4_000) * 0.1
        soundfile.write(buffer, burst, 16_000, format="WAV")
        rows.append({"audio": {"bytes": buffer.getvalue(), "path": f"{index}.wav"}, "label": index % 2})
    clips = Dataset.from_list(rows).cast_column("label", ClassLabel(names=["a", "b"]))
    clips = clips.cast_column("audio", Audio(decode=False))
    return DatasetDict(train=clips, validation=clips)


SMALL_SOUNDSCAPES = {"soundscape_seconds": 2.0, "num_train_soundscapes": 8, "num_eval_soundscapes": 3, "max_events": 4}


@pytest.mark.parametrize("overlapping", [False, True])
def test_soundscapes_hold_their_events_at_their_levels(overlapping):
    args = SoundscapeArguments(
        **SMALL_SOUNDSCAPES, min_snr_db=20, max_snr_db=20, overlapping_events=overlapping, max_event_seconds=0.2
    )
    made = make_soundscapes(bursts(), args)
    assert len(made["train"]) == 8 and len(made["validation"]) == 3
    rows = list(prepare_recordings(made["train"], 16_000))
    assert sum(row["labels"].sum() for row in rows) > 50
    for row, events in zip(rows, made["train"]["events"], strict=True):
        heard = row["labels"].max(1) > 0
        power = np.square(row["input_values"][: 320 * len(heard)]).reshape(-1, 320).mean(1)
        if heard.any() and not heard.all():
            assert np.median(power[heard]) > 30 * np.median(power[~heard])
        assert all(0.15 < event["end"] - event["start"] < 0.201 for event in events)
        if not overlapping:
            assert all(first["end"] < second["start"] for first, second in zip(events, events[1:], strict=False))


def test_the_same_seed_makes_the_same_soundscapes():
    first, again, other = (
        make_soundscapes(bursts(), SoundscapeArguments(**SMALL_SOUNDSCAPES), seed)["train"]["audio"][:]
        for seed in (0, 0, 1)
    )
    assert first == again != other


def test_quiet_ends_are_trimmed_and_silence_stays():
    samples = np.concatenate([np.zeros(1_600), np.full(800, 0.5), np.zeros(3_200)]).astype(np.float32)
    assert len(trimmed(samples)) == 800
    assert len(trimmed(np.zeros(1_000, np.float32))) == 1_000


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"soundscape_seconds": 0}, "must lie between 0 and 600"),
        ({"min_snr_db": 10, "max_snr_db": 0}, "must not be above"),
        ({"max_events": 0}, "`max_events` must be at least 1"),
    ],
    ids=str,
)
def test_impossible_soundscapes_are_refused(setting, message):
    with pytest.raises(ValueError, match=message):
        SoundscapeArguments(**setting)
