"""What libsndfile alone would cut short or damage in silence is read to its end, or refused, in blocks as at once."""

import io
import json
import logging
import re
import struct
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

import stream
from hear_hf import HEARFeatureExtractor
from hear_hf.data import containers, decoding
from hear_hf.data.decoding import SoundfileReader, decode_audio, read_audio, read_duration
from hear_hf.data.live import file_blocks
from hear_hf.data.sources import AUDIO_SUFFIXES
from hear_hf.streaming import HEARStream
from helpers import small_model

RATE = 16_000
CLIP = 0.3 * np.random.default_rng(0).standard_normal(RATE).clip(-3, 3)  # one second


def encoded(format: str, subtype: str | None = None, samples=CLIP, rate: int = RATE, **options) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, rate, format=format, subtype=subtype, **options)
    return file.getvalue()


def seconds(content: bytes) -> float:
    samples, rate = read_audio({"bytes": content, "path": "a clip"})
    return len(samples) / rate


def replaced(content: bytes, place: int, new: bytes) -> bytes:
    return content[:place] + new + content[place + len(new) :]


def mp3_without_its_first_frame(**options) -> bytes:
    """An MP3 file without the frame that says how long it is."""
    content = encoded("MP3", **options)
    return content[content.index(content[:2], 4) :]


def quiet_then_loud() -> np.ndarray:
    """Its first frames are small: what is estimated from them is wrong."""
    return np.concatenate([CLIP, np.zeros(5 * RATE), CLIP])


# To the end


def test_an_mp3_file_that_does_not_say_its_length_is_read_to_its_end(tmp_path):
    content = mp3_without_its_first_frame(samples=quiet_then_loud())
    (tmp_path / "clip.mp3").write_bytes(content)
    assert soundfile.info(tmp_path / "clip.mp3").duration < 6  # libsndfile's estimate
    assert seconds(content) == pytest.approx(7, abs=0.15)


@pytest.mark.parametrize(
    "start", [bytes(3_000), b"ID3\4\0\0\0\0\0\x10" + bytes(3_000)], ids=["zeros", "tag and zeros"]
)
def test_an_mp3_file_is_found_behind_zeros(start):
    assert seconds(start + encoded("MP3")) == 1


def id3_tag(num_bytes: int) -> bytes:
    """As it is in front of a file, with a picture."""
    head = b"ID3\4\0\0" + bytes(num_bytes >> shift & 0x7F for shift in (21, 14, 7, 0))
    return head + b"\xff\xd8\xff\xe0" + np.random.default_rng(2).bytes(num_bytes - 4)


def ape_tag(num_bytes: int) -> bytes:
    """Its head, what it holds, and its foot."""
    ends = [b"APETAGEX" + struct.pack("<5I4x", 2000, num_bytes + 32, 1, kind, 0) for kind in (0xA0000000, 0x80000000)]
    return ends[0] + np.random.default_rng(3).bytes(num_bytes) + ends[1]


@pytest.mark.parametrize("format", ["FLAC", "AIFF", "WAV", "MP3"])
@pytest.mark.parametrize("tag", [id3_tag, ape_tag])
def test_each_format_is_found_behind_tags(format, tag):
    assert seconds(tag(16) + tag(9_000) + encoded(format)) == 1


@pytest.mark.parametrize("tag", [b"TAG" + bytes(125), ape_tag(16), ape_tag(9_000), bytes(9_000)])
def test_a_flac_file_is_read_to_its_end_whatever_follows_its_frames(tag):
    whole, _ = read_audio({"bytes": encoded("FLAC"), "path": None})
    samples, _ = read_audio({"bytes": encoded("FLAC") + tag, "path": None})
    np.testing.assert_array_equal(samples, whole)


def test_an_mp3_file_of_many_bytes_a_sample_is_read_where_no_length_is_declared():
    frame = b"\xff\xff\xe8\xc0" + bytes(668)  # silence in layer 1 at 448 kbit/s and 32 kHz
    assert seconds(100 * frame) == pytest.approx(100 * 384 / 32_000, abs=0.06)


@pytest.mark.parametrize("declared", [0, 10, 50])
def test_an_mp3_file_that_declares_too_few_frames_is_read_to_its_end(declared):
    content = encoded("MP3", samples=np.tile(CLIP, 4))  # of some 110 frames
    content = replaced(content, content.index(b"Xing") + 8, struct.pack(">I", declared))
    assert seconds(content) == pytest.approx(4, abs=0.15)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (encoded("OGG", "VORBIS"), encoded("OGG", "VORBIS")),
        (encoded("OGG", "OPUS"), encoded("OGG", "VORBIS")),
        (encoded("MP3"), encoded("MP3")),
        (encoded("MP3"), encoded("MP3", samples=np.stack([CLIP, CLIP], axis=1))),
        (mp3_without_its_first_frame(), encoded("MP3")),
        (encoded("MP3"), mp3_without_its_first_frame()),
        (encoded("MP3") + b"TAG" + bytes(125), b"ID3\4\0\0\0\0\1\0" + bytes(128) + encoded("MP3")),
        (encoded("FLAC"), encoded("FLAC")),
        (encoded("FLAC"), id3_tag(9_000) + encoded("FLAC")),
        (encoded("MP3"), ape_tag(300_000) + id3_tag(300_000) + encoded("MP3")),
        (encoded("MP3") + ape_tag(20_000)[32:], encoded("MP3", samples=np.stack([CLIP, CLIP], axis=1))),
        (encoded("WAV"), encoded("WAV", samples=np.stack([CLIP, CLIP], axis=1))),
        (encoded("AIFF"), encoded("AIFF")),
        (encoded("AU"), encoded("AU")),
    ],
    ids=[
        "vorbis",
        "opus and vorbis",
        "mp3",
        "mono and stereo",
        "no length and mp3",
        "mp3 and no length",
        "tags",
        "flac",
        "flac and tag",
        "large tags",
        "tag without a head",
        "wav, mono and stereo",
        "aiff",
        "au",
    ],
)
def test_joined_files_are_read_to_the_end(first, second):
    assert seconds(first + second) == pytest.approx(seconds(first) + seconds(second), abs=0.08)
    joined, parts = (
        read_audio({"bytes": first + second, "path": None})[0],
        read_audio({"bytes": first, "path": None})[0],
    )
    if not np.array_equal(joined[: len(parts)], parts):
        assert np.corrcoef(joined[: RATE // 2], parts[: RATE // 2])[0, 1] > 0.99


@pytest.mark.parametrize("codec", ["VORBIS", "OPUS"])
def test_an_ogg_file_cut_short_is_read_as_far_as_it_goes(codec, caplog):
    content = encoded("OGG", codec, np.tile(CLIP, 4))
    found = seconds(content[: len(content) // 2])
    assert 0.8 < found < 2.6  # it is cut into pages of a second
    assert f"a clip breaks off after {found:.2f} s" in caplog.text


@pytest.mark.parametrize("codec", ["VORBIS", "OPUS"])
def test_an_ogg_file_without_the_mark_of_its_end_has_no_endless_length(codec, caplog):
    content = encoded("OGG", codec, np.tile(CLIP, 4))
    page = content.rindex(b"OggS")
    assert 2 < seconds(content[:page]) < 4 and "breaks off" in caplog.text
    assert (read_duration({"bytes": content[:page], "path": None}) or 0) < 4


def flac_of_unknown_length() -> bytes:
    """As it is written through a pipe: without its number of samples and the digest of them."""
    content = encoded("FLAC")
    return replaced(replaced(content, 22, bytes(4)), 21, bytes([content[21] & 0xF0]))[:26] + bytes(16) + content[42:]


def test_a_flac_file_of_unknown_length_is_read_to_its_end():
    assert seconds(flac_of_unknown_length()) == 1


@pytest.mark.parametrize("unwritten", [b"\0", b"\xff"], ids=["0", "-1"])
@pytest.mark.parametrize("kind", ["WAV", "RIFX", "RF64", "BW64", "AIFF", "AU", "little AU", "W64", "CAF"])
def test_a_recorder_that_crashed_before_it_wrote_the_length_is_read_to_the_end(kind, unwritten):
    format, endian = {"RIFX": ("WAV", "BIG"), "BW64": ("RF64", "FILE"), "little AU": ("AU", "LITTLE")}.get(
        kind, (kind, "FILE")
    )
    content = encoded(format, endian=endian)
    places = {
        "WAV": [(4, 4), (content.find(b"data") + 4, 4)],
        "RIFX": [(4, 4), (content.find(b"data") + 4, 4)],
        "RF64": [(20, 24)],
        "BW64": [(20, 24)],
        "AIFF": [(4, 4), (content.find(b"SSND") + 4, 4)],
        "AU": [(8, 4)],
        "little AU": [(8, 4)],
        "W64": [(content.find(b"data") + 16, 8)],
        "CAF": [(content.find(b"data") + 4, 8)],
    }
    for place, length in places[kind]:
        content = replaced(content, place, length * unwritten)
    content = b"BW64" + content[4:] if kind == "BW64" else content
    samples, _ = read_audio({"bytes": content, "path": None})
    np.testing.assert_allclose(samples[:RATE], CLIP, atol=1 / 2**14)


def test_a_file_without_sound_before_other_chunks_stays_empty():
    content = encoded("WAV", samples=np.zeros(0)) + b"LIST" + struct.pack("<I", 4) + b"INFO"
    with pytest.raises(ValueError, match="no samples"):
        seconds(content)


@pytest.mark.parametrize("format", ["WAV", "AIFF", "AU", "RF64", "W64", "MP3"])
def test_a_file_cut_short_is_named_with_both_lengths(format, caplog):
    content = encoded(format, samples=np.tile(CLIP, 4))
    with caplog.at_level(logging.WARNING):
        found = seconds(content[: len(content) // 2])
    assert 1.8 < found < 2.2
    assert f"a clip holds {found:.2f} s of the" in caplog.text and "size declares" in caplog.text


@pytest.mark.parametrize("kind", ["WAV", "RF64", "AIFF", "CAF", "FLAC"])
def test_sound_behind_what_the_head_declares_is_named(kind, caplog):
    content, half = encoded(kind, samples=np.tile(CLIP, 4)), 4 * RATE  # bytes
    if kind == "FLAC":  # its number of samples
        content = replaced(content, 22, struct.pack(">I", 2 * RATE))
    else:
        place = {"RF64": 28}.get(kind, content.find(b"SSND" if kind == "AIFF" else b"data") + 4)
        layout, extra = {"WAV": ("<I", 0), "RF64": ("<Q", 0), "AIFF": (">I", 8), "CAF": (">q", 4)}[kind]
        content = replaced(content, place, struct.pack(layout, half + extra))
    assert seconds(content) == 2
    assert re.search(r"a clip holds 2\.00 s of the (4\.00|3\.\d\d) s that its head or its size declares", caplog.text)


def test_sound_behind_what_an_au_file_declares_is_read():
    assert seconds(replaced(encoded("AU"), 8, struct.pack(">I", RATE))) == 1


TAILS = {
    "lyrics": b"LYRICSBEGININD0000310" + b"LYR00005hello" + b"000035LYRICS200" + b"TAG" + bytes(125),
    "an APE tag": b"APETAGEX" + struct.pack("<4I", 2000, 32, 0, 1 << 31) + bytes(8),
    "zeros": bytes(5000),
    "half a frame": b"",
}


@pytest.mark.parametrize("tail", TAILS)
def test_an_mp3_file_is_read_to_its_end_whatever_follows_its_frames(tail, caplog):
    content = encoded("MP3", samples=np.tile(CLIP, 4))
    whole, _ = read_audio({"bytes": content, "path": None})
    changed = content[:-100] if tail == "half a frame" else content + TAILS[tail]
    samples, _ = read_audio({"bytes": changed, "path": None})
    lost = 1152 if tail == "half a frame" else 0
    assert len(whole) - lost <= len(samples) <= len(whole) + 1152
    np.testing.assert_array_equal(samples[: len(whole) - lost - 1152], whole[: len(whole) - lost - 1152])
    assert not caplog.records


def test_a_damaged_frame_in_an_mp3_file_is_no_change_of_channels():
    content = encoded("MP3", samples=np.tile(CLIP, 4))
    head = content[:3]
    place = content.index(head[:2], len(content) // 2)
    damaged = replaced(content, place + 3, bytes([content[place + 3] ^ 0xC0]))  # mono becomes stereo
    assert damaged != content and seconds(damaged) > 1.5


def test_a_whole_file_is_no_reason_for_a_warning(caplog):
    for pairs in CODECS.values():
        for pair in pairs:
            seconds(encoded(*pair))
    seconds(encoded("MP3", rate=8000))
    seconds(encoded("WAV") + b"LIST" + struct.pack("<I", 4) + b"INFO")
    assert not caplog.records


@pytest.mark.parametrize("format", ["WAV", "FLAC"])
def test_channels_that_cancel_one_another_are_named_with_the_command_that_keeps_one(format, caplog):
    for other in (CLIP, 0 * CLIP, -0.9 * CLIP, np.random.default_rng(1).permutation(CLIP)):
        seconds(encoded(format, samples=np.stack([CLIP, other], axis=1)))
    seconds(encoded(format, samples=np.zeros((RATE, 2))))
    assert not caplog.records
    seconds(encoded(format, samples=np.stack([CLIP, -CLIP], axis=1)))
    assert "a clip is silent where its channels are averaged" in caplog.text and "pan=mono|c0=c0" in caplog.text


# Refused


@pytest.mark.parametrize(
    ("content", "hint"),
    [
        (b"", "It is empty: copy or download it again"),
        (b"PK\3\4" + bytes(99), "It is an archive: unpack it"),
        (b"\x1f\x8b\x08" + bytes(99), "It is an archive: unpack it"),
        (b"<!DOCTYPE html><html>", "It is a page or a message of the web: download the recording again"),
        (b'{"error": "not found"}', "It is a page or a message of the web: download the recording again"),
    ],
)
def test_what_is_no_sound_is_told_what_it_is(content, hint):
    with pytest.raises(ValueError, match=f"clip.wav must be audio .*{hint}"):
        decode_audio({"bytes": content, "path": "clip.wav"}, RATE)


def test_a_pointer_of_git_lfs_is_told_how_to_get_its_file(tmp_path):
    (tmp_path / "clip.wav").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n")
    with pytest.raises(ValueError, match="It is a pointer of Git LFS: get the file itself with `git lfs pull`"):
        decode_audio(tmp_path / "clip.wav", RATE)


def test_a_disk_that_fails_in_the_middle_is_named_by_its_file(monkeypatch, tmp_path):
    def fails(source, rate):
        yield CLIP.astype(np.float32)
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(stream, "live_blocks", fails)
    live = HEARStream(small_model(), RATE)
    assert stream.listen(live, "disk/clip.wav", as_json=False) == ["disk/clip.wav: [Errno 5] Input/output error"]


@pytest.mark.parametrize("format", ["OGG", "MP3", "FLAC", "WAV", "AIFF", "AU"])
def test_a_change_of_rate_in_the_middle_is_refused_with_the_command_that_mends_it(format, monkeypatch):
    monkeypatch.delattr(decoding, "_read_with_torchcodec")  # it would read the rest too fast
    with pytest.raises(ValueError, match="changes from 16000 to 8000 Hz.*ffmpeg -i IN -ar 16000 -ac 1 OUT.wav"):
        seconds(encoded(format) + encoded(format, rate=8000))


def test_a_file_of_two_chunks_of_sound_is_refused(monkeypatch):
    monkeypatch.delattr(decoding, "_read_with_torchcodec")  # it would read the first alone
    content = encoded("WAV")
    content += content[36:]
    with pytest.raises(ValueError, match="it has several chunks of sound. Mend it with"):
        seconds(replaced(content, 4, struct.pack("<I", len(content) - 8)))


def test_a_change_of_channels_between_the_frames_of_an_mp3_file_is_refused():
    stereo = mp3_without_its_first_frame(samples=np.stack([CLIP, CLIP], axis=1))
    with pytest.raises(ValueError, match="its rate or its number of channels changes"):
        seconds(mp3_without_its_first_frame() + stereo)


def ogg_heads() -> bytes:
    """The first page of a recording, and one that ends its heads: neither holds anything."""
    return b"".join(b"OggS\0" + bytes([flags]) + bytes(21) for flags in (2, 0))


def in_many_parts() -> dict[str, bytes]:
    wav, mp3, count = encoded("WAV"), encoded("MP3"), containers.MAX_PARTS + 100
    return {
        "chunks": wav[:12] + b"junk\0\0\0\0" * count + wav[12:],
        "chunks in place of sound": wav[:40] + bytes(4) + b"junk\0\0\0\0" * count,
        "tags": (b"ID3\4" + bytes(6)) * count + mp3,
        "tags between frames": mp3 + (b"ID3\4" + bytes(6)) * count,
        "false frames": mp3 + b"\xff\xfb\x10" * count,
        "FLAC files": b"fLaC\0\0\0\x22" * count,
        "marks of FLAC files": b"fLaC" * count,
        "Ogg files": ogg_heads() * count,
    }


@pytest.mark.timeout(60)
@pytest.mark.parametrize("kind", in_many_parts())
def test_a_file_of_countless_parts_is_refused_before_they_are_all_looked_at(kind):
    with pytest.raises(ValueError, match="has more than 10000 parts.*ffmpeg"):
        seconds(in_many_parts()[kind])


def test_samples_without_a_header_are_refused_with_the_command_that_converts_them(tmp_path):
    (tmp_path / "clip.raw").write_bytes((CLIP * 2**15).astype("<i2").tobytes())
    with pytest.raises(ValueError, match=r"clip\.raw must be audio .* `ffmpeg -f s16le -ar RATE -ac 1 -i IN OUT.wav`"):
        decode_audio(tmp_path / "clip.raw", RATE)


def test_a_file_beside_a_resource_fork_of_macos_is_read(tmp_path):
    (tmp_path / "clip.mp3").write_bytes(encoded("MP3"))
    (tmp_path / "._clip.mp3").touch()  # which makes libsndfile take the other for Sound Designer II
    assert len(decode_audio(tmp_path / "clip.mp3", RATE)) == RATE


# In blocks

FORMATS = [
    ("WAV", "PCM_16"),
    ("WAV", "PCM_U8"),
    ("WAV", "FLOAT"),
    ("WAV", "MS_ADPCM"),
    ("WAV", "ULAW"),
    ("AIFF", "PCM_24"),
    ("CAF", "ALAC_16"),
    ("FLAC", "PCM_24"),
    ("OGG", "VORBIS"),
    ("OGG", "OPUS"),
    ("MP3", "MPEG_LAYER_III"),
]


@settings(max_examples=60, deadline=None)
@given(
    kind=st.sampled_from(FORMATS),
    channels=st.integers(1, 2),
    rate=st.sampled_from([8_000, 16_000, 48_000]),
    joined=st.booleans(),
    block=st.integers(1, 9_000),
)
def test_blocks_of_any_size_are_the_whole_to_the_bit(kind, channels, rate, joined, block):
    """python-soundfile seeks after each read, which damages what some MP3 decoders give next."""
    samples = np.stack([CLIP[:8_000], CLIP[-8_000:]], axis=1)[:, :channels]
    content = encoded(*kind, samples=samples, rate=rate) * (2 if joined and kind[0] in ("OGG", "FLAC", "MP3") else 1)
    whole, _ = read_audio({"bytes": content, "path": None})
    blocks = list(SoundfileReader("clip", content).blocks(block))
    assert max(map(len, blocks)) <= block
    np.testing.assert_array_equal(np.concatenate(blocks), whole)


def test_a_long_file_is_never_held_as_a_whole(tmp_path):
    soundfile.write(tmp_path / "long.flac", np.tile(CLIP, 300), RATE)
    tracemalloc.start()
    num_samples = sum(len(block) for block in file_blocks(str(tmp_path / "long.flac"), RATE))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert num_samples == 300 * RATE and peak < 4e6  # all of it: 19 MB


def test_a_small_file_that_goes_on_and_on_is_left_after_what_no_recording_of_its_size_holds(tmp_path, monkeypatch):
    monkeypatch.setattr(decoding, "MAX_DECODED", 2 * RATE)
    soundfile.write(tmp_path / "silence.flac", np.zeros((60 * RATE, 2)), RATE)
    blocks = file_blocks(str(tmp_path / "silence.flac"), RATE)
    with pytest.raises(ValueError, match="silence.flac must be whole, found: more than [0-9]+ numbers in so small"):
        for block in blocks:
            assert len(block) <= RATE
    soundfile.write(tmp_path / "noise.flac", np.tile(CLIP, 60), RATE)
    assert sum(map(len, file_blocks(str(tmp_path / "noise.flac"), RATE))) == 60 * RATE


# Streams of files


@pytest.fixture
def checkpoint(tmp_path):
    small_model().save_pretrained(tmp_path / "model")
    HEARFeatureExtractor().save_pretrained(tmp_path / "model")
    return str(tmp_path / "model")


def test_a_stream_keeps_what_it_heard_of_a_broken_file_and_goes_on_to_the_next(checkpoint, tmp_path, capsys):
    samples = np.tile(CLIP, 4)
    soundfile.write(tmp_path / "whole.wav", samples, RATE, subtype="FLOAT")
    samples[2 * RATE :] = np.nan
    soundfile.write(tmp_path / "broken.wav", samples, RATE, subtype="FLOAT")
    with pytest.raises(SystemExit) as error:
        stream.main([checkpoint, str(tmp_path / "broken.wav"), "nowhere.wav", str(tmp_path / "whole.wav")])
    assert "broken.wav must hold finite" in str(error.value) and "nowhere.wav must be" in str(error.value)
    ends = [line.split()[0] for line in capsys.readouterr().out.splitlines() if "s in all" in line]
    assert ends == ["2.0", "4.0"]


def test_a_flac_file_cut_short_is_refused_or_named_with_both_lengths(caplog):
    content = encoded("FLAC", samples=np.tile(CLIP, 4))
    try:
        seconds(content[: len(content) // 2])  # libsndfile 1.2.0 knows no error
    except ValueError as error:
        assert "lost sync" in str(error)
    else:
        assert "of the 4.00 s that its head or its size declares" in caplog.text


def test_the_duration_in_a_header_is_taken_only_where_it_is_known():
    assert read_duration({"bytes": encoded("FLAC"), "path": None}) == 1
    joined, unsaid = 2 * encoded("MP3"), mp3_without_its_first_frame()
    for content in (flac_of_unknown_length(), joined, unsaid, b"no sound"):
        assert read_duration({"bytes": content, "path": None}) is None


def test_lines_of_json_say_which_file_follows(checkpoint, tmp_path, capsys):
    for name in ("one.wav", "two.wav"):
        soundfile.write(tmp_path / name, CLIP, RATE)
    files = [str(tmp_path / name) for name in ("one.wav", "two.wav")]
    stream.main([checkpoint, *files, "--json"])
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line.get("file", line.get("end")) for line in lines] == [files[0], 1.0, files[1], 1.0]


def test_a_stream_of_not_a_number_ends_with_a_message(checkpoint, tmp_path):
    soundfile.write(tmp_path / "nan.wav", np.full(RATE, np.nan), RATE, subtype="FLOAT")
    with pytest.raises(SystemExit, match=r"nan\.wav must hold finite samples"):
        stream.main([checkpoint, str(tmp_path / "nan.wav")])


# The table of docs/audio-formats.md

TABLE = Path(__file__).parents[2] / "docs" / "audio-formats.md"
# (format, codec) of each row of what soundfile reads, the codecs in the order of the row
CODECS = {
    "WAV": [("WAV", f"PCM_{kind}") for kind in ("U8", "16", "24", "32")]
    + [("WAV", codec) for codec in ("FLOAT", "DOUBLE", "ALAW", "ULAW", "MS_ADPCM", "IMA_ADPCM", "GSM610")],
    "RF64": [("RF64", codec) for codec in ("PCM_16", "PCM_24", "PCM_32", "FLOAT")],
    "Wave64": [("W64", codec) for codec in ("PCM_16", "PCM_32", "FLOAT", "ALAW", "ULAW", "MS_ADPCM", "GSM610")],
    "FLAC": [("FLAC", codec) for codec in ("PCM_S8", "PCM_16", "PCM_24")],
    "Ogg": [("OGG", codec) for codec in ("VORBIS", "OPUS")],
    "MPEG audio": [("MP3", "MPEG_LAYER_III")],
    "AIFF, AIFC": [("AIFF", codec) for codec in ("PCM_S8", "PCM_16", "FLOAT", "ALAW", "ULAW", "IMA_ADPCM", "GSM610")],
    "AU": [("AU", codec) for codec in ("PCM_S8", "PCM_16", "FLOAT", "ALAW", "ULAW", "G721_32")],
    "CAF": [("CAF", codec) for codec in ("PCM_16", "FLOAT", "ALAW", "ULAW", "ALAC_16", "ALAC_24")],
    "NIST SPHERE": [("NIST", codec) for codec in ("PCM_16", "ALAW", "ULAW")],
    "VOC": [("VOC", codec) for codec in ("PCM_U8", "PCM_16", "ALAW", "ULAW")],
}
TONE = 0.5 * np.sin(2 * np.pi * 440 * np.arange(RATE) / RATE)


def table(heading: str) -> list[list[str]]:
    """The cells of the rows of the table that follows a line."""
    rows = TABLE.read_text(encoding="utf-8").partition(heading)[2].lstrip("\n").partition("\n\n")[0].splitlines()[2:]
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]


def test_the_table_lists_what_is_written_here():
    rows = table("soundfile, which every extra installs, reads:\n")
    assert [row[0] for row in rows] == list(CODECS)
    listed = {
        suffix for row in rows + table("also what FFmpeg reads:\n") for suffix in re.findall(r"`(\.\w+)`", row[-1])
    }
    assert listed >= set(AUDIO_SUFFIXES)


@pytest.mark.parametrize(("format", "codec"), [pair for pairs in CODECS.values() for pair in pairs])
def test_soundfile_alone_reads_each_format_of_the_table(format, codec, monkeypatch):
    monkeypatch.setitem(sys.modules, "torchcodec", None)
    samples, rate = read_audio({"bytes": encoded(format, codec, TONE), "path": None})
    assert abs(rate - RATE) < 0.01 * RATE and abs(len(samples) - RATE) < 0.1 * RATE  # VOC rounds its rate
    assert np.abs(np.fft.rfft(samples[: RATE // 2])).argmax() == 220


@pytest.mark.parametrize(
    ("layer", "head", "length", "num_samples"), [(2, b"\xff\xfd", 208, 1152), (1, b"\xff\xff", 208, 384)]
)
def test_soundfile_alone_reads_layers_1_and_2_of_mpeg(layer, head, length, num_samples):
    """Frames of silence at 64 kbit/s (layer 1: 192) and 44,100 Hz, mono: nothing but a head is set."""
    bitrate = {1: 6, 2: 4}[layer]
    frame = head + bytes([bitrate << 4, 0xC0]) + bytes(length - 4)
    assert seconds(100 * frame) == pytest.approx(100 * num_samples / 44_100, abs=0.06)


def ogg_page(packet: bytes, number: int, flags: int) -> bytes:
    lacing = bytes([255] * (len(packet) // 255) + [len(packet) % 255])
    head = b"OggS\0" + struct.pack("<BqIIIB", flags, 0, 1, number, 0, len(lacing)) + lacing
    checksum = 0
    for byte in head + packet:
        checksum ^= byte << 24
        for _ in range(8):
            checksum = (checksum << 1 ^ (0x04C11DB7 if checksum & 2**31 else 0)) & 0xFFFFFFFF
    return replaced(head, 22, struct.pack("<I", checksum)) + packet


def with_bits(content: bytes, bits: int) -> bytes:
    """A FLAC file whose head says that a sample has so many bits."""
    code = bits - 1
    return replaced(content, 20, bytes([content[20] & 0xFE | code >> 4, content[21] & 0x0F | (code & 15) << 4]))


FOREIGN = {
    "clip.m4a": b"\0\0\0\x20ftypM4A " + bytes(300),
    "clip.aac": b"\xff\xf1\x50\x80" + bytes(300),
    "clip.webm": b"\x1a\x45\xdf\xa3" + bytes(300),
    "clip.wma": bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c") + bytes(300),
    "clip.amr": b"#!AMR\n" + bytes(300),
    "12_bits.flac": with_bits(encoded("FLAC"), 12),
    "20_bits.flac": with_bits(encoded("FLAC"), 20),
    "32_bits.flac": with_bits(encoded("FLAC"), 32),
    "flac.oga": ogg_page(b"\x7fFLAC\1\0\0\0" + encoded("FLAC")[:42], 0, 2) + ogg_page(encoded("FLAC")[86:8086], 1, 4),
}


@pytest.mark.parametrize("name", FOREIGN)
def test_other_formats_are_refused_with_both_remedies_where_torchcodec_is_missing(name, monkeypatch):
    monkeypatch.setitem(sys.modules, "torchcodec", None)
    with pytest.raises(ValueError, match=f"{name} must be audio .*`ffmpeg -i IN .* or install torchcodec and FFmpeg"):
        decode_audio({"bytes": FOREIGN[name], "path": name}, RATE)
