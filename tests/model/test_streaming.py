"""Live audio: `HEARStream` against the model on the same excerpts and clips, and the script against the class."""

import io
import json
import pickle
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
import soxr
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import Wav2Vec2Config, Wav2Vec2ForSequenceClassification

import stream as script
from hear_hf import HEARConfig, HEARForAudioFrameClassification, HEARStream
from hear_hf.events import find_events
from hear_hf.frame_head_hear import pool_frame_logits
from hear_hf.streaming import join_pooled
from helpers import SMALL, noise, small_model

MODEL = small_model()
RATE = 16_000
SIZES = {"sampling_rate": RATE, "window_seconds": 0.5, "hop_seconds": 0.2, "segment_seconds": 1.0}
CLIP = noise(int(2 * RATE))  # as long as the decision on the whole is exact
LONG = noise(int(5.3 * RATE), seed=1)


def assert_same(result, expected, tolerance=1e-5):
    assert (result.start, result.end) == (expected.start, expected.end)
    torch.testing.assert_close(result.logits, expected.logits, rtol=0, atol=tolerance)
    torch.testing.assert_close(result.scores, expected.scores, rtol=0, atol=tolerance)


def run(stream, blocks):
    """The results of all windows and the decision."""
    return [result for block in blocks for result in stream.push(block)], stream.finish()


@pytest.fixture(scope="module")
def of_long():
    return run(HEARStream(MODEL, **SIZES), [LONG])


@settings(max_examples=6, deadline=None)
@given(cuts=st.lists(st.integers(0, len(LONG)), max_size=30))
def test_how_the_audio_is_cut_does_not_matter(of_long, cuts):
    results, decision = run(HEARStream(MODEL, **SIZES), LONG.tensor_split(sorted(cuts)))
    for result, expected in zip([*results, decision], [*of_long[0], of_long[1]], strict=True):
        assert_same(result, expected)


def test_blocks_may_hold_one_sample_or_none():
    clip = CLIP[:9_000]
    (expected,), expected_decision = run(HEARStream(MODEL, **SIZES), [clip])
    (result,), decision = run(HEARStream(MODEL, **SIZES), [clip[:0], *clip.split(1), clip[:0]])
    assert_same(result, expected)
    assert_same(decision, expected_decision)


@torch.no_grad()
def test_a_window_s_result_is_the_model_s_on_that_excerpt(of_long):
    results, _ = of_long
    assert [round(result.start, 6) for result in results] == [round(0.2 * i, 6) for i in range(25)]
    for result in results:
        assert result.end == result.start + 0.5
        excerpt = LONG[round(result.start * RATE) : round(result.end * RATE)]
        torch.testing.assert_close(result.logits, MODEL(excerpt[None]).logits[0], rtol=0, atol=1e-5)


@pytest.mark.parametrize("num_samples", [201, 7_999, 8_000, 20_001, 2 * RATE])
@torch.no_grad()
def test_the_decision_is_the_model_s_on_the_whole_clip_up_to_two_segments(num_samples):
    stream = HEARStream(MODEL, **SIZES)
    _, decision = run(stream, CLIP[:num_samples].split(1_000))
    assert (decision.start, decision.end) == (0, num_samples / RATE)
    torch.testing.assert_close(decision.logits, MODEL(CLIP[None, :num_samples]).logits[0], rtol=0, atol=1e-5)


@torch.no_grad()
def test_a_longer_stream_s_decision_pools_the_frames_of_its_segments(of_long):
    _, decision = of_long
    cuts = [RATE, 2 * RATE, 3 * RATE, 4 * RATE]
    frames = torch.cat([MODEL.hear(part[None]).last_hidden_state[0] for part in LONG.tensor_split(cuts)])
    pooled = torch.cat([frames.mean(0), frames.amax(0), frames.std(0)])
    assert (decision.start, decision.end) == (0, len(LONG) / RATE)
    torch.testing.assert_close(decision.logits, MODEL.classifier(pooled[None])[0], rtol=0, atol=1e-5)


def test_joined_statistics_are_those_of_all_frames():
    def pooled(frames):
        return torch.cat([frames.mean(0), frames.amax(0), frames.std(0)])[None], len(frames)

    frames = 3 + torch.randn(700, 5) * torch.linspace(1, 9, 700)[:, None]
    joined, num_frames = join_pooled(pooled(frames[:600]), pooled(frames[600:]))
    expected, expected_num_frames = pooled(frames)
    torch.testing.assert_close(joined, expected)
    assert num_frames == expected_num_frames


def test_the_running_decision_does_not_disturb_the_stream():
    stream, undisturbed = HEARStream(MODEL, **SIZES), HEARStream(MODEL, **SIZES)
    for block in LONG.split(25_000):
        for result, expected in zip(stream.push(block), undisturbed.push(block), strict=True):
            assert_same(result, expected, tolerance=0)
        assert_same(stream.decision(), undisturbed.decision(), tolerance=0)
        assert_same(stream.decision(), stream.decision(), tolerance=0)


def test_after_its_end_a_stream_begins_anew():
    stream = HEARStream(MODEL, **SIZES)
    run(stream, [LONG])
    assert stream.seconds == 0
    stream.push(LONG)
    stream.reset()
    for _ in range(2):
        results, decision = run(stream, [CLIP])
        expected, expected_decision = run(HEARStream(MODEL, **SIZES), [CLIP])
        assert [result.start for result in results] == [result.start for result in expected]
        assert_same(decision, expected_decision, tolerance=0)


def test_streams_of_one_model_do_not_disturb_each_other():
    streams, clips = [HEARStream(MODEL, **SIZES) for _ in range(2)], [LONG, LONG.flip(0)]
    for blocks in zip(*(clip.split(9_000) for clip in clips), strict=True):
        for stream, block in zip(streams, blocks, strict=True):
            stream.push(block)
    for stream, clip in zip(streams, clips, strict=True):
        assert_same(stream.finish(), run(HEARStream(MODEL, **SIZES), [clip])[1])


def test_a_long_stream_is_held_in_bounded_memory():
    def held():
        return len(pickle.dumps({name: value for name, value in vars(stream).items() if name != "model"}))

    stream = HEARStream(small_model(num_hidden_layers=1), RATE, hop_seconds=2.0, segment_seconds=2.0)
    at_first = held()
    assert at_first < 4 * RATE * 4 + 10_000
    assert sum(len(stream.push(CLIP)) for _ in range(50)) == 50
    assert stream.seconds == 100
    assert held() < at_first + 10_000


def test_an_endless_block_is_read_in_batches(monkeypatch):
    batches, forward = [], MODEL.forward
    monkeypatch.setattr(MODEL, "forward", lambda batch: batches.append(len(batch)) or forward(batch))
    assert len(HEARStream(MODEL, **SIZES, batch_size=3).push(LONG)) == sum(batches)
    assert max(batches) == 3


@pytest.mark.parametrize(
    ("problem_type", "scores"),
    [
        (None, lambda logits: logits.softmax(-1)),
        ("single_label_classification", lambda logits: logits.softmax(-1)),
        ("multi_label_classification", torch.sigmoid),
        ("regression", lambda logits: logits),
    ],
)
def test_scores_follow_from_the_problem_type(problem_type, scores):
    stream = HEARStream(small_model(problem_type=problem_type), **SIZES)
    for result in [*stream.push(CLIP), stream.finish()]:
        torch.testing.assert_close(result.scores, scores(result.logits), rtol=0, atol=0)


def test_dropout_is_off_and_no_graph_is_kept():
    stream = HEARStream(small_model().train(), **SIZES)
    expected, _ = run(HEARStream(MODEL, **SIZES), [CLIP])
    for result, other in zip(stream.push(CLIP), expected, strict=True):
        assert_same(result, other)
        assert not result.logits.requires_grad
    assert not stream.finish().logits.requires_grad


def test_a_bfloat16_model_gives_float32_results(of_long):
    results, decision = run(HEARStream(small_model().bfloat16(), **SIZES), [LONG])
    for result, expected in zip([*results, decision], [*of_long[0], of_long[1]], strict=True):
        assert result.logits.dtype == torch.float32
        torch.testing.assert_close(result.logits, expected.logits, rtol=0, atol=0.1)


def test_pcm_is_scaled_as_the_feature_extractor_does():
    pcm = (CLIP.numpy() * 2**15).astype(np.int16)
    result, expected = (run(HEARStream(MODEL, **SIZES), [block])[1] for block in (pcm, pcm / np.float32(2**15)))
    assert_same(result, expected, tolerance=0)


@pytest.mark.parametrize(
    ("block", "error", "message"),
    [
        (np.zeros((160, 2), np.float32), ValueError, r"must be mono.*found: \(160, 2\)"),
        (np.zeros((160, 1), np.float32), ValueError, r"must be mono.*found: \(160, 1\)"),
        (np.full(160, np.nan), ValueError, "must be finite.*found: 160 NaN"),
        (np.zeros(160, np.uint8), TypeError, "floats in .* or int16 or int32 PCM, found: uint8"),
        (np.array(["a"] * 160), TypeError, "found: <U1"),
        (bytes(320), TypeError, r"The block must be .*found: bytes.*np.frombuffer\(block, dtype='<i2'\)"),
        (bytearray(320), TypeError, "found: bytearray.*np.frombuffer"),
        (memoryview(bytes(320)), TypeError, "found: memoryview.*np.frombuffer"),
        (None, ValueError, "must hold samples.*found: .*a single number"),
    ],
)
def test_a_bad_block_is_refused_and_leaves_the_stream_as_it_was(block, error, message):
    stream = HEARStream(MODEL, **SIZES)
    stream.push(CLIP[:10_000])
    with pytest.raises(error, match=message):
        stream.push(block)
    stream.push(CLIP[10_000:])
    assert_same(stream.finish(), run(HEARStream(MODEL, **SIZES), [CLIP])[1])


@pytest.mark.parametrize(("clip", "found"), [(CLIP[:0], "0"), (CLIP[:200], "200")])
def test_a_stream_that_ends_too_soon_is_refused_and_forgotten(clip, found):
    stream = HEARStream(MODEL, **SIZES)
    stream.push(clip)
    with pytest.raises(ValueError, match=rf"The stream must hold at least 201 samples \(12.6 ms\), found: {found}\."):
        stream.finish()
    stream.push(CLIP)
    assert stream.finish().end == 2


@pytest.mark.parametrize(
    "sizes",
    [
        {"hop_seconds": 0},
        {"hop_seconds": 3.0},
        {"window_seconds": 0.012, "hop_seconds": 0.01},
        {"window_seconds": 31.0},
        {"batch_size": 0},
    ],
)
def test_lengths_that_do_not_go_together_are_refused(sizes):
    with pytest.raises(ValueError, match="`hop_seconds` <= `window_seconds` <= `segment_seconds`.*found: "):
        HEARStream(MODEL, RATE, **sizes)


def test_another_rate_and_a_model_without_a_head_are_refused():
    with pytest.raises(ValueError, match="must be 16000 Hz.*found: 44100 Hz"):
        HEARStream(MODEL, 44_100)
    with pytest.raises(TypeError, match="must be a HEARForAudioClassification or .*, found: HEARModel"):
        HEARStream(MODEL.hear, RATE)
    with pytest.raises(TypeError, match="must be a number of Hz, found the text '16000'"):
        HEARStream(MODEL, "16000")


@pytest.fixture
def checkpoint(tmp_path):
    MODEL.save_pretrained(tmp_path / "model")
    return str(tmp_path / "model")


def printed(capsys):
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def expected_lines(clip):
    results, decision = run(HEARStream(MODEL, RATE, 0.5, 0.2), [clip])
    lines = []
    for result in [*results, decision]:
        score, best = result.scores.max(-1)
        label, score = MODEL.config.id2label[best.item()], pytest.approx(score.item(), abs=1e-5)
        lines.append({"start": result.start, "end": result.end, "label": label, "score": score})
    return lines


def test_the_script_prints_what_the_class_gives(checkpoint, tmp_path, capsys):
    soundfile.write(tmp_path / "clip.wav", LONG.numpy(), RATE, subtype="FLOAT")
    script.main([checkpoint, str(tmp_path / "clip.wav"), "--window", "0.5", "--hop", "0.2", "--json"])
    lines = printed(capsys)
    script.main(["--window", "0.5", "--hop", "0.2", "--json", checkpoint, str(tmp_path / "clip.wav")])
    assert lines == printed(capsys) == expected_lines(LONG)


def test_the_script_averages_channels_and_resamples_block_by_block(checkpoint, tmp_path, capsys):
    stereo = np.stack([noise(int(1.7 * 44_100), seed) for seed in (1, 2)], axis=1)
    soundfile.write(tmp_path / "clip.wav", stereo, 44_100, subtype="FLOAT")
    script.main([checkpoint, str(tmp_path / "clip.wav"), "--window", "0.5", "--hop", "0.2", "--json"])
    assert printed(capsys) == expected_lines(soxr.resample(stereo.mean(axis=1), 44_100, RATE))


def test_the_script_reads_raw_samples_from_standard_input(checkpoint, monkeypatch, capsys):
    pcm = (CLIP.numpy() * 2**15).astype(np.int16)
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(pcm.tobytes() + b"\0")))
    script.main([checkpoint, "-", "--window", "0.5", "--hop", "0.2", "--json"])
    assert printed(capsys) == expected_lines(pcm)


def test_the_script_listens_to_a_microphone_until_it_is_interrupted(checkpoint, monkeypatch, capsys):
    class InputStream(io.BytesIO):
        def __init__(self, sampling_rate, channels, dtype, latency):
            super().__init__(CLIP.numpy().tobytes())
            assert (sampling_rate, channels, dtype) == (RATE, 1, "float32")

        def read(self, num_samples):
            block = np.frombuffer(super().read(4 * num_samples), np.float32)
            if len(block) == 0:
                raise KeyboardInterrupt
            return block[:, None], False

    monkeypatch.setitem(sys.modules, "sounddevice", SimpleNamespace(InputStream=InputStream))
    script.main([checkpoint, "--microphone", "--window", "0.5", "--hop", "0.2", "--json"])
    assert printed(capsys) == expected_lines(CLIP)


def test_the_script_shows_a_label_when_it_changes(checkpoint, tmp_path, capsys):
    soundfile.write(tmp_path / "clip.wav", LONG.numpy(), RATE, subtype="FLOAT")
    script.main([checkpoint, str(tmp_path / "clip.wav"), "--window", "0.5", "--hop", "0.2"])
    *windows, whole = expected_lines(LONG)
    changes = [window for i, window in enumerate(windows) if i == 0 or window["label"] != windows[i - 1]["label"]]
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:3] for line in lines[:-1]] == [[f"{w['end']:.1f}", "s:", w["label"]] for w in changes]
    assert lines[-1].strip().startswith(f"5.3 s in all: {whole['label']}")


@pytest.mark.parametrize("arguments", [[], ["clip.wav", "--microphone"]])
def test_the_script_asks_for_one_source(arguments, capsys):
    with pytest.raises(SystemExit):
        script.main(["model", *arguments])
    assert "give either an audio file" in capsys.readouterr().err


def test_the_script_says_which_lengths_do_not_go_together(checkpoint, tmp_path):
    with pytest.raises(SystemExit, match="hop_seconds=3.0"):
        script.main([checkpoint, str(tmp_path / "clip.wav"), "--hop", "3"])


def test_the_script_says_what_is_missing(checkpoint, tmp_path, monkeypatch):
    with pytest.raises(SystemExit, match="must be an audio file, found none"):
        script.main([checkpoint, str(tmp_path / "none.wav")])
    monkeypatch.setitem(sys.modules, "sounddevice", None)
    with pytest.raises(SystemExit, match="--microphone needs the package sounddevice.*Install"):
        script.main([checkpoint, "--microphone"])


def test_another_model_is_refused_by_its_name(tmp_path):
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    config = Wav2Vec2Config(**sizes, conv_dim=[8], conv_kernel=[10], conv_stride=[5], num_conv_pos_embedding_groups=2)
    Wav2Vec2ForSequenceClassification(config).save_pretrained(tmp_path)
    with pytest.raises(SystemExit, match="must be a HEARForAudioClassification or .*, found: Wav2Vec2ForSequence"):
        script.main([str(tmp_path), "clip.wav"])


@pytest.fixture(scope="module")
def frame_model():
    model = HEARForAudioFrameClassification(HEARConfig(**SMALL, frame_pooling="mean")).eval()
    model.hear.load_state_dict(MODEL.hear.state_dict())
    torch.nn.init.normal_(model.frame_classifier.weight, std=0.3)
    return model


@pytest.mark.parametrize("size", [1_000, 7_777, 100_000])
def test_the_frames_of_windows_are_those_of_the_stream_each_once(frame_model, size):
    stream = HEARStream(frame_model, **SIZES)
    clip = LONG[: int(3.33 * RATE)]
    results = [result for block in clip.split(size) for result in stream.push(block)]
    whole = stream.finish()
    frames = torch.cat([result.frame_scores for result in (*results, whole)])
    assert len(frames) == (1 + len(clip) // 160) // 2
    last = frame_model(clip[None, int(2.8 * RATE) : int(3.3 * RATE)]).logits[0].sigmoid()  # the window before the end
    torch.testing.assert_close(results[-1].frame_scores, last[-10:], rtol=0, atol=1e-5)
    torch.testing.assert_close(frames[155:165], last[-10:], rtol=0, atol=1e-5)


@pytest.mark.parametrize("pooling", ["max", "mean", "linear_softmax"])
def test_the_decision_pools_the_frames_of_all_segments(frame_model, pooling):
    frame_model.config.frame_pooling = pooling
    stream = HEARStream(frame_model, **SIZES)
    (exact,) = frame_model(CLIP[None]).clip_logits
    stream.push(CLIP)
    torch.testing.assert_close(stream.finish().logits, exact, rtol=0, atol=1e-4)
    stream.push(LONG)
    parts = [frame_model(part[None]).logits for part in (*LONG[: 4 * RATE].split(RATE), LONG[4 * RATE :])]
    logits = torch.cat(parts, dim=1)
    expected = pool_frame_logits(logits, torch.ones(logits.shape[:2], dtype=torch.bool), pooling)
    torch.testing.assert_close(stream.finish().logits, expected[0], rtol=0, atol=1e-4)


def test_a_hop_that_divides_a_frame_is_refused(frame_model):
    with pytest.raises(ValueError, match="`hop_seconds` must be a multiple of 0.02"):
        HEARStream(frame_model, **SIZES | {"hop_seconds": 0.21})


def test_the_script_prints_each_sound_when_it_is_over(frame_model, tmp_path, capsys):
    frame_model.config.event_thresholds = [0.6] * 7
    frame_model.save_pretrained(tmp_path)
    soundfile.write(tmp_path / "clip.wav", CLIP.numpy(), RATE, subtype="FLOAT")
    script.main([str(tmp_path), str(tmp_path / "clip.wav"), "--window", "2", "--hop", "1", "--json"])
    *events, whole = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    scores = frame_model(CLIP[None]).logits[0].detach().sigmoid().numpy()
    labels = [frame_model.config.id2label[index] for index in range(7)]
    expected = find_events(scores, labels, [0.6] * 7)
    assert whole["end"] == 2.0 and len(events) == len(expected) > 0
    found = sorted((event["start"], event["label"]) for event in events)
    assert found == [(event.start, event.label) for event in expected]
