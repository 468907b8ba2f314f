"""examples/run_onnx.py: the runner where there is no PyTorch, against PyTorch."""

import io
import os
import re
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

pytest.importorskip("onnx", reason="the export needs `pip install hear_hf[onnx]`")
pytest.importorskip("onnxruntime", reason="the export needs `pip install hear_hf[onnx]`")
pytest.importorskip("onnxscript", reason="the export needs `pip install hear_hf[onnx]`")

import run_onnx
from hear_hf.data.decoding import decode_audio
from hear_hf.scores import scores_of
from helpers import noise

BLOCKED = """
import runpy, sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "transformers", "hear_hf", "onnx", "soxr"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Blocker())
runpy.run_path(sys.argv.pop(1), run_name="__main__")
"""


def run_without_torch(*arguments) -> subprocess.CompletedProcess:
    command = [sys.executable, "-c", BLOCKED, run_onnx.__file__, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"})


@torch.no_grad()
def test_it_names_sounds_without_pytorch(folder, model, waveforms):
    result = run_without_torch(folder / "model" / "onnx" / "model.onnx", folder / "0.wav", folder / "1.wav")
    assert result.returncode == 0, result.stderr
    scores = model(waveforms[1][None]).logits.sigmoid()[0]
    expected = ", ".join(f"{model.config.id2label[int(i)]} {scores[i]:.3f}" for i in scores.argsort().flip(0)[:3])
    assert result.stdout.splitlines()[1] == f"{folder / '1.wav'}: {expected}"


def test_it_averages_channels(folder, tmp_path, capsys):
    clip = noise(9000).numpy()
    soundfile.write(tmp_path / "mono.wav", clip, 16_000, subtype="FLOAT")
    soundfile.write(tmp_path / "stereo.wav", np.stack([clip + 0.1, clip - 0.1], axis=1), 16_000, subtype="FLOAT")
    run_onnx.main(
        str(folder / "model" / "onnx" / "model.onnx"), str(tmp_path / "mono.wav"), str(tmp_path / "stereo.wav")
    )
    mono, stereo = capsys.readouterr().out.splitlines()
    assert mono.partition(": ")[2] == stereo.partition(": ")[2]


def test_it_resamples_where_it_can_and_else_says_what_to_do(folder, tmp_path, capsys):
    file = tmp_path / "rate.wav"
    soundfile.write(file, noise(22_050).numpy(), 22_050)
    result = run_without_torch(folder / "model" / "onnx" / "model.onnx", file)
    assert result.returncode == 1 and "must be at 16000 Hz, found 22050 Hz" in result.stderr
    run_onnx.main(str(folder / "model" / "onnx" / "model.onnx"), str(file))
    assert capsys.readouterr().out.startswith(f"{file}: ")


def test_a_model_that_is_not_there_is_told_about(folder, tmp_path):
    result = run_without_torch(tmp_path / "model_int8.onnx", folder / "0.wav")
    assert result.returncode == 1 and "Traceback" not in result.stderr
    assert "such as onnx/model_quantized.onnx, found no labels" in result.stderr


@pytest.mark.parametrize("content", [b"", b"not a graph", b"\x08\x0a" * 40])
def test_a_model_that_is_no_graph_is_told_about(content, tmp_path):
    (tmp_path / "model.onnx").write_bytes(content)
    with pytest.raises(SystemExit, match="The model must be an exported file"):
        run_onnx.main(str(tmp_path / "model.onnx"), "a.wav")


def test_a_file_too_short_is_refused(folder, tmp_path):
    soundfile.write(tmp_path / "short.wav", np.zeros(200), 16_000)
    with pytest.raises(ValueError, match="must hold more than 12.5 ms of sound, found 200 samples"):
        run_onnx.read_clip(str(tmp_path / "short.wav"), 16_000)


@pytest.mark.parametrize("rate", [1, 2**31 - 1])
def test_an_absurd_rate_is_refused(rate, tmp_path):
    content = encoded(np.zeros(6_000), format="WAV")
    (tmp_path / "odd.wav").write_bytes(content[:24] + rate.to_bytes(4, "little") + content[28:])
    with pytest.raises(ValueError, match=f"must have a rate of 1 to 768 kHz, found {rate} Hz"):
        run_onnx.read_clip(str(tmp_path / "odd.wav"), 16_000)


def test_too_many_samples_in_all_channels_are_refused_before_they_are_decoded(tmp_path, monkeypatch):
    monkeypatch.setattr(run_onnx, "MAX_DECODED", 10_000)
    monkeypatch.setattr(run_onnx.ForwardFile, "read", None)
    soundfile.write(tmp_path / "many.flac", np.zeros((6_000, 2)), 16_000)
    with pytest.raises(ValueError, match="must hold at most 10000 numbers in all channels, found 12000"):
        run_onnx.read_clip(str(tmp_path / "many.flac"), 16_000)


def test_samples_after_resampling_are_counted_too(tmp_path, monkeypatch):
    monkeypatch.setattr(run_onnx, "MAX_DECODED", 10_000)
    monkeypatch.setattr(run_onnx.ForwardFile, "read", None)
    soundfile.write(tmp_path / "slow.flac", np.zeros(1_000), 1_000)
    with pytest.raises(ValueError, match="must hold at most 10000 numbers in all channels, found 16000"):
        run_onnx.read_clip(str(tmp_path / "slow.flac"), 16_000)


def test_samples_are_counted_as_they_are_decoded_where_no_length_is_declared(tmp_path, monkeypatch):
    monkeypatch.setattr(run_onnx, "MAX_DECODED", 10_000)
    (tmp_path / "unsaid.flac").write_bytes(without_length(encoded(CLIP, format="FLAC")))
    with pytest.raises(ValueError, match="must hold at most 10000 numbers in all channels, found 10368"):
        run_onnx.read_clip(str(tmp_path / "unsaid.flac"), 16_000)


def test_what_is_no_file_or_too_large_is_refused_before_it_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr(run_onnx, "MAX_DECODED", 100)
    (tmp_path / "large.wav").write_bytes(bytes(801))
    for place in (tmp_path, tmp_path / "large.wav"):
        with pytest.raises(ValueError, match="must be a file of at most 4 GiB"):
            run_onnx.read_clip(str(place), 16_000)


def encoded(samples, rate=16_000, **options) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, rate, **options)
    return file.getvalue()


def without_length(flac: bytes) -> bytes:
    """As it is written through a pipe: without its number of samples and the digest of them."""
    return flac[:21] + bytes([flac[21] & 0xF0]) + bytes(20) + flac[42:]


def crashed(content: bytes, *places: int) -> bytes:
    """With zeros for the lengths at these places, as a recorder that crashes leaves them."""
    for place in places:
        content = content[:place] + bytes(4) + content[place + 4 :]
    return content


CLIP = noise(16_000).numpy()
REFUSED = {
    "nan.wav": (encoded(np.full(16_000, np.nan), format="WAV", subtype="FLOAT"), "a peak of nan"),
    "joined_to_one_that_does_not_say_its_length.mp3": (
        encoded(CLIP, format="MP3") + encoded(CLIP, format="MP3")[1000:5000],
        "to its end, found more",
    ),
    "joined_to_noise.mp3": (encoded(CLIP, format="MP3") + bytes(range(1, 256)) * 99, "to its end, found more"),
    "cut.flac": (encoded(CLIP, format="FLAC")[:20_000], "lost sync"),
    "samples.raw": (bytes(range(256)), "Format not recognised"),
    "empty.wav": (b"", "Format not recognised"),
}


def test_it_names_each_file_that_it_cannot_read_and_goes_on(folder, tmp_path, capsys):
    for name, (content, _) in REFUSED.items():
        (tmp_path / name).write_bytes(content)
    names = [*REFUSED, "nowhere.wav"]
    with pytest.raises(SystemExit, match=f"{len(names)} of {len(names) + 1} files"):
        run_onnx.main(
            str(folder / "model" / "onnx" / "model.onnx"), *(str(tmp_path / name) for name in names), f"{folder}/0.wav"
        )
    printed = capsys.readouterr()
    assert printed.out.startswith(f"{folder}/0.wav: ") and len(printed.err.splitlines()) == len(names)
    assert "BytesIO" not in printed.err
    for line, (name, (_, found)) in zip(printed.err.splitlines(), REFUSED.items(), strict=False):
        assert re.search(f"{name}: .*{found}.* ffmpeg -i IN", line)


def test_what_it_reads_is_what_the_package_reads(tmp_path):
    contents = [encoded(5 * CLIP, format=name) for name in ("WAV", "FLAC", "OGG", "MP3", "AIFF", "AU", "RF64", "W64")]
    wav, au = contents[0], contents[5]
    flac, ogg, mp3 = contents[1:4]
    id3 = b"ID3\3" + bytes(4) + b"\x7f\x7f" + np.random.default_rng(0).bytes(0x3FFF)
    ape = [b"APETAGEX" + struct.pack("<5I4x", 2000, 9032, 1, kind << 28, 0) for kind in (0xA, 8)]
    ape, old = ape[0] + bytes(range(250)) * 36 + ape[1], b"TAG" + bytes(125)
    unsaid = mp3[mp3.index(mp3[:2], 4) :]  # without the frame that says its length
    contents += [flac + flac, ogg + ogg + ogg, mp3 + mp3, mp3 + id3 + mp3, mp3 + ape + old + id3 + mp3 + ape + old]
    contents += [
        id3 + mp3 + bytes(9000) + id3 + mp3,
        unsaid,
        unsaid + id3 + unsaid,
        unsaid + id3 + mp3,
    ]
    contents += [id3 + id3 + wav, id3 + flac + ape + id3 + flac + old, wav + b"LIST" + bytes([4, 0, 0, 0]) + b"INFO"]
    contents += [crashed(wav, 4, wav.index(b"data") + 4), crashed(au, 8), without_length(contents[1])]
    for content in contents:
        (tmp_path / "clip").write_bytes(content)
        read = run_onnx.read_clip(str(tmp_path / "clip"), 16_000)
        np.testing.assert_array_equal(read, decode_audio(tmp_path / "clip", 16_000))


@pytest.mark.parametrize("format", ["WAV", "FLAC"])
def test_channels_that_cancel_one_another_are_named_where_the_package_warns(format, tmp_path, capsys, caplog):
    for sign in (1, -1):
        content = encoded(np.stack([CLIP, sign * CLIP], axis=1), format=format)
        (tmp_path / "clip").write_bytes(content)
        run_onnx.read_clip(str(tmp_path / "clip"), 16_000)
        decode_audio(tmp_path / "clip", 16_000)
        warned = "clip' is silent where its channels are averaged" in capsys.readouterr().err
        assert warned == ("clip is silent where its channels are averaged" in caplog.text) == (sign < 0)


def test_sound_behind_what_a_wav_file_declares_is_named_where_the_package_warns(tmp_path, capsys, caplog):
    content = encoded(CLIP, format="WAV")
    (tmp_path / "clip").write_bytes(content + content[44:])
    read = run_onnx.read_clip(str(tmp_path / "clip"), 16_000)
    np.testing.assert_array_equal(read, decode_audio(tmp_path / "clip", 16_000))
    assert "it has 1.00 of the 2.00 s" in capsys.readouterr().err and "1.00 s of the 2.00 s" in caplog.text


@pytest.mark.timeout(60)
def test_long_runs_of_zeros_are_searched_once(tmp_path):
    mp3 = encoded(CLIP, format="MP3")
    (tmp_path / "clip").write_bytes(mp3 + bytes(2_000_000) + b"noise")
    with pytest.raises(ValueError, match="to its end, found more"):
        run_onnx.read_clip(str(tmp_path / "clip"), 16_000)


def test_files_of_several_rates_that_are_joined_are_refused(tmp_path):
    (tmp_path / "clip").write_bytes(encoded(CLIP, format="OGG") + encoded(CLIP, format="OGG", rate=8_000))
    with pytest.raises(ValueError, match="must stay at 16000 Hz"):
        run_onnx.read_clip(str(tmp_path / "clip"), 16_000)


def test_samples_of_all_joined_files_are_counted_before_they_are_decoded(tmp_path, monkeypatch):
    monkeypatch.setattr(run_onnx, "MAX_DECODED", 20_000)
    decode, parts = run_onnx.decode, []
    monkeypatch.setattr(run_onnx, "decode", lambda *arguments: parts.append(decode(*arguments)) or parts[-1])
    (tmp_path / "clip").write_bytes(5 * encoded(CLIP, format="FLAC"))
    with pytest.raises(ValueError, match="must hold at most 20000 numbers in all channels, found 32000"):
        run_onnx.read_clip(str(tmp_path / "clip"), 16_000)
    assert len(parts) == 1


def test_a_file_without_sound_before_other_chunks_stays_empty(tmp_path):
    (tmp_path / "empty.wav").write_bytes(encoded(CLIP[:0], format="WAV") + b"LIST" + bytes([0, 4, 0, 0]) + bytes(1024))
    with pytest.raises(ValueError, match="found 0 samples"):
        run_onnx.read_clip(str(tmp_path / "empty.wav"), 16_000)


@pytest.mark.parametrize("format", ["WAV", "AIFF", "AU", "RF64", "W64", "MP3"])
def test_a_file_cut_short_is_named_where_the_package_warns(format, tmp_path, capsys, caplog):
    content = encoded(np.tile(CLIP, 4), format=format)
    (tmp_path / "clip").write_bytes(content)
    run_onnx.read_clip(str(tmp_path / "clip"), 16_000)
    assert not capsys.readouterr().err
    (tmp_path / "clip").write_bytes(content[: len(content) // 2])
    read = run_onnx.read_clip(str(tmp_path / "clip"), 16_000)
    lengths = re.search("clip' was cut short: it has (.*) of the (.*) s it declares", capsys.readouterr().err)
    assert [float(one) for one in lengths.groups()] == pytest.approx([len(read) / 16_000, 4], abs=0.1)
    decode_audio(tmp_path / "clip", 16_000)
    assert "clip holds" in caplog.text


@pytest.mark.parametrize("problem_type", ["single_label_classification", "multi_label_classification", "regression"])
def test_its_scores_are_those_of_the_package(problem_type):
    logits = np.array([-90.0, 0.5, 2.0, 90.0], dtype=np.float32)
    expected = scores_of(torch.from_numpy(logits), problem_type)
    np.testing.assert_allclose(run_onnx.scores_of(logits, problem_type), expected, rtol=1e-5, atol=1e-30)


def test_it_is_short():
    assert len(Path(run_onnx.__file__).read_text(encoding="utf-8").splitlines()) <= 200
