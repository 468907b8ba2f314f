"""`examples/space/`: a tiny trained classifier on sounds made here, what the app refuses, and whose code it runs."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
import torch
import yaml
from transformers import Wav2Vec2Config

import sound_events
from audio import visitors
from audio.visitors import read_clip
from clip_folder import clip_folder
from hear_hf import HEARConfig, HEARFeatureExtractor, HEARForAudioFrameClassification, HEARForPreTraining
from hear_hf.events import find_events
from hear_hf.scores import scores_of
from hearing_figure import draw, log_mel
from helpers import SMALL, noise, small_model
from sound_events import Classifier, Hearing, hear
from space_model import LABELS, RATE, save_trained_classifier, sound

ROOT = Path(__file__).parents[2]
SPACE = ROOT / "examples" / "space"
SEQUENCE = (("low", 2.0), (None, 1.0), ("high", 2.0), (None, 1.0), ("noise", 2.0))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained")
    save_trained_classifier(folder)
    return folder


@pytest.fixture(scope="module")
def classifier(folder):
    return Classifier(str(folder), configured=True)


@pytest.fixture
def app(monkeypatch):
    pytest.importorskip("gradio", reason="the page needs the extra `space` (gradio)")
    import app

    app.visitors_classifier.cache_clear()
    return app


def sequence():
    """Low, high, noise, with digital silence between them."""
    parts = [np.zeros(int(s * RATE), np.float32) if label is None else sound(label, s, 9) for label, s in SEQUENCE]
    return np.concatenate(parts)


def saved(model, folder):
    model.save_pretrained(folder)
    HEARFeatureExtractor().save_pretrained(folder)
    return str(folder)


@pytest.mark.parametrize("label", LABELS)
def test_the_whole_clip_gets_the_right_label(classifier, label):
    scores = hear(classifier, sound(label, 1.3, seed=7), 2.0).clip_scores
    assert LABELS[scores.argmax()] == label and scores.max() > 0.8


def test_segments_say_what_is_heard_when(classifier):
    segments = hear(classifier, sequence(), 1.0).segments(0.5)
    assert [label for _, _, label, _ in segments] == list(LABELS)
    expected = [(0, 2), (3, 5), (6, 8)]
    found = [(start, end) for start, end, _, _ in segments]
    np.testing.assert_allclose(found, expected, atol=0.5)  # a window of 1 s tells the time to half of it


@pytest.mark.parametrize("seconds", [0.1, 0.99, 1.0, 1.01, 1.25, 7.77])
def test_windows_cover_a_clip_of_any_length_once(classifier, seconds):
    hearing = hear(classifier, sound("low", seconds), 1.0)
    assert hearing.edges[0] == 0 and hearing.edges[-1] == pytest.approx(seconds)
    assert (np.diff(hearing.edges) > 0).all() and len(hearing.edges) == len(hearing.scores) + 1


def test_a_window_scores_as_it_does_alone_though_the_last_is_shorter(classifier):
    clip = sequence()[: int(2.4 * RATE)]
    hearing = hear(classifier, clip, 1.0)
    alone = np.stack([classifier([clip[start : start + RATE]])[0] for start in range(0, 6 * RATE // 4, RATE // 4)])
    assert len(hearing.scores) == 7 and len(clip) - 6 * RATE // 4 < RATE
    np.testing.assert_allclose(hearing.scores[:6], alone, atol=1e-5)
    np.testing.assert_allclose(hearing.scores[6], classifier([clip[6 * RATE // 4 :]])[0], atol=1e-5)


def test_no_more_windows_are_scored_at_once_than_a_batch(classifier, monkeypatch):
    sizes = []
    monkeypatch.setattr(Classifier, "__call__", lambda self, clips: sizes.append(len(clips)) or np.zeros((1, 3)))
    hear(classifier, sound("low", 20), 0.5)
    assert max(sizes) == sound_events.WINDOWS_PER_BATCH and sum(sizes) == 158  # 157 windows and the clip


def test_a_silent_window_scores_nothing(classifier):
    hearing = hear(classifier, sequence(), 1.0)
    silent = hearing.scores.max(axis=1) == 0
    assert silent.sum() == 2 and silent[[8, 20]].all()  # those that begin at 2 s and at 5 s


def test_a_stretch_has_the_mean_score_of_its_windows():
    scores = np.array([[0.9, 0.1], [0.7, 0.6], [0.2, 0.8], [0.5, 0.1]])
    hearing = Hearing(np.zeros(4), 1, ["a", "b"], scores[0], scores, np.arange(5.0), np.full(2, 0.5))
    assert hearing.segments(0.5) == [
        (0, 2, "a", pytest.approx(0.8)),
        (1, 3, "b", pytest.approx(0.7)),
        (3, 4, "a", pytest.approx(0.5)),
    ]
    assert hearing.segments(0.75) == [(0, 1, "a", 0.9), (2, 3, "b", 0.8)]


def test_a_slider_scales_the_odds_of_each_label_s_own_threshold():
    scores = np.array([[0.15, 0.65], [0.3, 0.75], [0.45, 0.9]])
    hearing = Hearing(np.zeros(3), 1, ["a", "b"], scores[0], scores, np.arange(4.0), np.array([0.2, 0.7]))
    starts = {strictness: [segment[0] for segment in hearing.segments(strictness)] for strictness in (0.3, 0.5, 0.75)}
    # Odds of 1 to 4 and 7 to 3, times 3: 0.43 and 0.88.
    assert starts == {0.3: [0, 0], 0.5: [1, 1], 0.75: [2, 2]}


def test_labels_of_a_multi_label_model_score_apart(tmp_path):
    model = small_model(problem_type="multi_label_classification")
    clip = sound("noise", 1.0)
    scores = Classifier(saved(model, tmp_path), configured=True)([clip])
    torch.testing.assert_close(torch.from_numpy(scores), model(torch.from_numpy(clip)[None]).logits.sigmoid())


def test_a_model_of_frames_says_when_by_its_frames(tmp_path):
    model = HEARForAudioFrameClassification(HEARConfig(**SMALL)).eval()
    torch.nn.init.normal_(model.frame_classifier.weight, std=0.3)
    classifier, clip = Classifier(saved(model, tmp_path), configured=True), noise(20_000).numpy()
    hearing = hear(classifier, clip, 2.0)
    expected = model(torch.from_numpy(clip)[None])
    np.testing.assert_allclose(hearing.scores, expected.logits[0].detach().sigmoid(), atol=1e-5)
    np.testing.assert_allclose(hearing.clip_scores, expected.clip_logits[0].detach().sigmoid(), atol=1e-5)
    assert len(hearing.edges) == len(hearing.scores) + 1 == 64 and hearing.edges[-1] == 1.25
    draw(hearing)


def test_a_model_of_frames_hears_what_its_thresholds_and_median_say(tmp_path):
    model = HEARForAudioFrameClassification(HEARConfig(**SMALL)).eval()
    torch.nn.init.normal_(model.frame_classifier.weight, std=0.3)
    clip = noise(20_000).numpy()
    frames = model(torch.from_numpy(clip)[None]).logits[0].detach().sigmoid().numpy()
    model.config.event_thresholds = np.median(frames, axis=0).astype(float).tolist()
    model.config.event_median_frames = 5
    classifier = Classifier(saved(model, tmp_path), configured=True)
    expected = find_events(frames, classifier.labels, model.config.event_thresholds, 5)
    found = hear(classifier, clip, 2.0).segments()
    assert sorted((event.start, event.end, event.label) for event in expected) == [
        (start, pytest.approx(end, abs=0.03), label) for start, end, label, _ in found
    ]
    assert len(found) > 7
    model.config.event_thresholds = [0.5]
    with pytest.raises(ValueError, match="`event_thresholds` must be one for each of 7 labels, found 1"):
        Classifier(saved(model, tmp_path), configured=True)


def test_a_progress_bar_sees_each_batch_once(classifier):
    seen = []
    hear(classifier, sound("low", 5), 0.5, track=lambda batches: [seen.append(batch) or batch for batch in batches])
    assert seen == [0, 16, 32]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"RIFF, but no more", "that begins b'RIFF, but no'"),
        (b"", "clip.wav must be audio"),
        (np.zeros(0), "no samples"),
        (np.full(100, 0.1), "at least 0.1 s, found: 0.006 s"),
        (np.zeros(RATE), "silence"),
        (np.full(601 * 1_000, 0.1), "at most 10 minutes, found: more"),
    ],
    ids=["broken", "empty file", "no samples", "too short", "silent", "too long"],
)
def test_an_unfit_file_is_named_without_its_folder(tmp_path, content, message):
    path = tmp_path / "clip.wav"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        soundfile.write(path, content, 1_000 if len(content) > RATE else RATE)
    with pytest.raises(ValueError, match=re.escape(message)) as error:
        read_clip(str(path), RATE)
    assert str(error.value).startswith("clip.wav") and str(tmp_path) not in str(error.value)


def test_an_overlong_file_is_not_decoded(tmp_path, monkeypatch):
    soundfile.write(tmp_path / "long.wav", np.ones(700 * 1_000), 1_000)
    monkeypatch.setattr(visitors, "decode_audio", lambda *_: pytest.fail("decoded"))
    with pytest.raises(ValueError, match="at most 10 minutes"):
        read_clip(str(tmp_path / "long.wav"), RATE)


def test_a_flac_file_whose_head_has_no_length_is_heard(tmp_path):
    soundfile.write(tmp_path / "clip.flac", sound("low", 2.0), RATE)
    content = bytearray((tmp_path / "clip.flac").read_bytes())
    content[21:42] = bytes([content[21] & 0xF0]) + bytes(20)  # number of samples, and their digest
    (tmp_path / "clip.flac").write_bytes(content)
    assert soundfile.info(tmp_path / "clip.flac").duration > 1e9
    assert len(read_clip(str(tmp_path / "clip.flac"), RATE)) == 2 * RATE


def test_a_stereo_flac_of_another_rate_is_heard(classifier, tmp_path):
    clip = np.repeat(sound("low", 2.0)[:, None], 2, axis=1)  # played at half its rate, lower still
    soundfile.write(tmp_path / "clip.flac", clip, RATE // 2)
    waveform = read_clip(str(tmp_path / "clip.flac"), RATE)
    assert waveform.shape == (4 * RATE,)
    assert LABELS[hear(classifier, waveform, 2.0).clip_scores.argmax()] == "low"


@pytest.mark.parametrize("kind", ["no folder", "regression", "pretraining", "another model"])
def test_what_is_no_hear_classifier_is_refused(tmp_path, kind):
    if kind == "regression":
        saved(small_model(problem_type="regression"), tmp_path)
    elif kind == "pretraining":
        saved(HEARForPreTraining(HEARConfig(**SMALL)), tmp_path)
    elif kind == "another model":
        Wav2Vec2Config().save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="must be a HEAR classifier, and could not be loaded as one: "):
        Classifier(str(tmp_path / "absent" if kind == "no folder" else tmp_path), configured=True)


def test_a_feature_extractor_of_another_rate_than_the_model_s_is_refused(tmp_path):
    small_model().save_pretrained(tmp_path)
    HEARFeatureExtractor(sampling_rate=32_000).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="the same in config.json .* found 16000 and 32000 Hz"):
        Classifier(str(tmp_path))


def test_the_code_of_a_checkpoint_never_runs_where_hear_hf_is_installed(folder, tmp_path):
    config = json.loads((folder / "config.json").read_text()) | {"model_type": "mine"}
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "configuration_hear.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    for configured in (True, False):
        with pytest.raises(ValueError, match="could not be loaded"):
            Classifier(str(tmp_path), configured)
    assert not (tmp_path / "ran").exists()


def test_without_hear_hf_the_code_of_the_configured_model_alone_runs(folder, tmp_path):
    np.save(tmp_path / "clip.npy", sound("high", 1.0))
    script = (
        "import sys\n"
        "import numpy as np\n"
        "sys.modules['hear_hf'] = None\n"
        "from sound_events import Classifier\n"
        "try:\n"
        "    Classifier(sys.argv[1])\n"
        "except ValueError as error:\n"
        "    print(error)\n"
        "assert not [name for name in sys.modules if name.startswith('transformers_modules.')]\n"
        "classifier = Classifier(sys.argv[1], configured=True)\n"
        "print(classifier.labels[classifier([np.load('clip.npy')])[0].argmax()])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(folder)],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(SPACE)},
        check=True,
        capture_output=True,
        text=True,
    )
    refusal, label = done.stdout.splitlines()
    assert "`hear_hf` must be installed" in refusal and label == "high"


def test_a_visitors_model_gets_no_token(folder, monkeypatch):
    tokens, auto = [], sound_events.AutoFeatureExtractor
    load = auto.from_pretrained
    monkeypatch.setattr(auto, "from_pretrained", lambda *args, **kw: tokens.append(kw["token"]) or load(*args, **kw))
    Classifier(str(folder))
    Classifier(str(folder), configured=True)
    assert tokens == [False, None]  # None: the one of the environment


def test_the_spectrogram_shows_a_tone_at_its_frequency():
    clip = np.sin(2 * np.pi * 1000 * np.arange(RATE) / RATE).astype(np.float32)
    levels = log_mel(clip, RATE)
    mel = 2595 * np.log10(1 + np.array([1000, RATE / 2]) / 700)
    assert levels.shape[1] == 101 and levels.max() == 0 and levels.min() >= -80
    assert abs(levels[:, 50].argmax() - mel[0] / mel[1] * len(levels)) < 2


def test_the_timeline_lists_labels_in_the_order_of_their_peaks(classifier):
    figure = draw(hear(classifier, sequence()[::-1].copy(), 1.0))
    spectrogram, timeline = figure.axes[:2]
    assert [tick.get_text() for tick in timeline.get_yticklabels()] == ["noise", "high", "low"]
    assert spectrogram.get_xlim() == timeline.get_xlim() == (0, 8)


def test_a_label_that_looks_like_a_formula_is_drawn_as_it_is(tmp_path):
    scores = np.array([[0.9, 0.1]], np.float32)
    figure = draw(
        Hearing(sound("low", 1.0), RATE, ["$x_$", "b"], scores[0], scores, np.array([0.0, 1.0]), np.full(2, 0.5))
    )
    figure.savefig(tmp_path / "figure.png")
    assert "$x_$" in [tick.get_text() for tick in figure.axes[1].get_yticklabels()]


def test_the_page_gets_scores_a_figure_and_rows(app, classifier, tmp_path):
    soundfile.write(tmp_path / "clip.wav", sequence(), RATE)
    scores, figure, rows = app.classify(classifier, str(tmp_path / "clip.wav"), 1.0, 0.5)
    assert set(scores) == set(LABELS) and sum(scores.values()) == pytest.approx(1)
    assert [row[2] for row in rows] == list(LABELS) and len(figure.axes) == 3


def test_a_file_that_browsers_do_not_play_is_heard(app, classifier, tmp_path):
    soundfile.write(tmp_path / "clip.aif", sound("low", 2.0), RATE, format="AIFF")
    scores, *_ = app.classify(classifier, str(tmp_path / "clip.aif"), 1.0, 0.5)
    assert max(scores, key=scores.get) == "low"


def test_the_examples_are_sounds_that_can_be_heard(app, tmp_path):
    files = app.example_files()
    assert len(files) > 5 and files["church bell"].name == "church_bell.ogg"
    for file in files.values():
        rate, samples = app.example(file)
        soundfile.write(tmp_path / "clip.wav", samples, rate)
        heard, original = read_clip(str(tmp_path / "clip.wav"), RATE), read_clip(str(file), RATE)
        assert np.corrcoef(heard, original[: len(heard)])[0, 1] > 0.99


def test_a_space_offers_the_sounds_beside_it_and_a_page_without_any_still_opens(
    app, classifier, tmp_path, monkeypatch
):
    monkeypatch.setattr(app, "__file__", str(tmp_path / "space" / "app.py"))
    assert app.example_files() == {} and app.build_app(classifier)
    (tmp_path / "space" / "sounds").mkdir(parents=True)
    (tmp_path / "space" / "sounds" / "a_dog.ogg").touch()
    assert app.example_files() == {"a dog": tmp_path / "space" / "sounds" / "a_dog.ogg"}


def test_the_model_is_named_by_the_environment_then_the_file_and_else_is_the_repository_s(app, tmp_path, monkeypatch):
    space = tmp_path / "examples" / "space"
    space.mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(app, "__file__", str(space / "app.py"))
    monkeypatch.delenv("HEAR_MODEL", raising=False)
    with pytest.raises(ValueError, match="must be named by the environment variable HEAR_MODEL or in .*model_id.txt"):
        app.configured_name()
    ours = os.path.join("checkpoints", "hear-tiny")
    os.makedirs(ours)
    Path(ours, "config.json").touch()
    assert app.configured_name() == ours
    (space / "model_id.txt").write_text("someone/hear\n")
    assert app.configured_name() == "someone/hear"
    (space / "someone" / "hear").mkdir(parents=True)
    assert app.configured_name() == str(space / "someone" / "hear")
    monkeypatch.setenv("HEAR_MODEL", "runs/mine")
    assert app.configured_name() == "runs/mine"


def test_visitors_load_only_models_that_the_owner_of_the_page_names(app, folder, monkeypatch):
    monkeypatch.delenv("HEAR_VISITOR_MODELS", raising=False)
    with pytest.raises(ValueError, match="must be one that this page offers, found: someone/hear"):
        app.visitors_classifier("someone/hear")
    monkeypatch.setenv("HEAR_VISITOR_MODELS", f"a/b {folder}")
    assert app.visitors_classifier(str(folder)).labels == list(LABELS)
    with pytest.raises(ValueError, match="must be one that this page offers"):
        app.visitors_classifier("someone/hear")


@pytest.mark.parametrize("name", ["/etc", "../..", "a" * 5_000, "a/b@" + "c" * 5_000, "https://a/b", ""])
def test_a_visitor_never_names_a_path_of_the_server(app, folder, monkeypatch, name):
    monkeypatch.setenv("HEAR_VISITOR_MODELS", "*")
    with pytest.raises(ValueError, match="must be a repository of the Hub, as OWNER/NAME") as error:
        app.visitors_classifier(name or str(folder))
    assert len(str(error.value)) < 200


def published(monkeypatch, *sizes):
    """Puts files of these sizes on a Hub that knows only their names and sizes; returns the revisions asked for."""
    files = [SimpleNamespace(rfilename=f"model-{i}.safetensors", size=size) for i, size in enumerate(sizes)]
    asked = []

    def model_info(self, repository, revision, files_metadata):
        asked.append((repository, revision))
        return SimpleNamespace(siblings=files, sha="c0ffee")

    monkeypatch.setattr(sound_events.HfApi, "model_info", model_info)
    return asked


@pytest.mark.parametrize("sizes", [(3e8, 3e8), (None,)])
def test_a_visitors_repository_of_more_than_500_mb_is_not_downloaded(monkeypatch, sizes):
    published(monkeypatch, *sizes)
    monkeypatch.setattr(sound_events.AutoConfig, "from_pretrained", lambda *_, **__: pytest.fail("downloaded"))
    with pytest.raises(ValueError, match="must take at most 500 MB, found: "):
        Classifier("someone/huge")


def test_a_visitors_adapter_of_a_model_of_any_size_or_place_is_not_loaded(monkeypatch):
    files = [SimpleNamespace(rfilename="adapter_config.json", size=100)]
    info = SimpleNamespace(siblings=files, sha="c0ffee")
    monkeypatch.setattr(sound_events.HfApi, "model_info", lambda *_, **__: info)
    monkeypatch.setattr(sound_events.AutoConfig, "from_pretrained", lambda *_, **__: pytest.fail("downloaded"))
    with pytest.raises(ValueError, match="must be a whole model, found an adapter"):
        Classifier("someone/adapter")


def test_a_visitors_repository_is_loaded_at_the_commit_that_was_measured(monkeypatch):
    asked, loaded = published(monkeypatch, 1000), []
    monkeypatch.setattr(sound_events.AutoConfig, "from_pretrained", lambda *a, **kw: loaded.append((a, kw)))
    with pytest.raises(ValueError, match="must be a HEAR classifier"):
        Classifier("someone/hear@v1")
    assert asked == [("someone/hear", "v1")]
    assert loaded[0][0] == ("someone/hear",) and loaded[0][1]["revision"] == "c0ffee"


def test_the_space_runs_the_revision_that_was_published_not_the_newest(monkeypatch):
    loaded = []
    monkeypatch.setattr(sound_events.AutoConfig, "from_pretrained", lambda *a, **kw: loaded.append((a, kw)))
    with pytest.raises(ValueError, match="must be a HEAR classifier"):
        Classifier("someone/hear@c0ffee", configured=True)
    assert loaded[0][0] == ("someone/hear",) and loaded[0][1]["revision"] == "c0ffee"


def test_the_queue_of_the_space_is_bounded_and_cannot_be_passed_by(app, classifier):
    page = app.build_app(classifier)
    assert page._queue.max_size == app.MAX_WAITING == 20 and not page.api_open
    runs = [one for one in page.fns.values() if one.api_name == "classify"]
    assert len(runs) == 1 and runs[0].queue and runs[0].concurrency_limit in ("default", 1)


KILLED = """
import os, signal
from clip_folder import clip_folder
with clip_folder() as folder:
    (folder / "clip.wav").write_bytes(b"a voice")
    print(folder, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_clips_of_a_killed_run_are_cleared_at_start_and_those_of_a_running_one_are_not(tmp_path, monkeypatch):
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    settings = os.environ | {"PYTHONPATH": str(SPACE)}
    done = subprocess.run([sys.executable, "-c", KILLED], env=settings, capture_output=True, text=True)
    killed = Path(done.stdout.strip())
    assert (killed / "clip.wav").is_file() and killed.parent == tmp_path
    (tmp_path / "of_another_app").mkdir()
    with clip_folder() as running:
        assert os.environ["GRADIO_TEMP_DIR"] == str(running) and not killed.exists()
        monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
        with clip_folder() as second:
            assert running.is_dir() and second.is_dir()
    assert [path.name for path in tmp_path.iterdir()] == ["of_another_app"]


def test_the_space_pins_the_versions_that_the_package_is_tested_with():
    constraints = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    lines = (SPACE / "requirements.txt").read_text(encoding="utf-8").splitlines()
    pinned = {line for line in lines if not line.startswith("#")}
    assert all(re.fullmatch(r"[\w-]+==[\w.]+", line) for line in pinned)
    assert {line for line in pinned if not line.startswith("torchcodec==")} <= set(constraints)
    card = yaml.safe_load((SPACE / "README.md").read_text(encoding="utf-8").split("---\n")[1])
    assert f"gradio=={card['sdk_version']}" in constraints


def test_the_published_space_reads_what_soundfile_cannot():
    assert (SPACE / "packages.txt").read_text(encoding="utf-8").split() == ["ffmpeg"]
    assert "torchcodec==" in (SPACE / "requirements.txt").read_text(encoding="utf-8")


@pytest.mark.parametrize("problem_type", ["single_label_classification", "multi_label_classification"])
def test_the_space_scores_as_the_package_does(tmp_path, problem_type):
    model = small_model(problem_type=problem_type, sampling_rate=RATE)
    model.save_pretrained(tmp_path)
    HEARFeatureExtractor(sampling_rate=RATE).save_pretrained(tmp_path)
    clip = sound("high", 1.0)
    with torch.no_grad():
        expected = scores_of(model(torch.from_numpy(clip)[None]).logits, problem_type)
    np.testing.assert_allclose(Classifier(str(tmp_path))([clip]), expected, atol=1e-6)


def test_the_space_decodes_and_finds_events_as_the_package_does():
    homes = {copy: "data" for copy in {*SPACE.glob("audio/*.py")} - {SPACE / "audio" / "__init__.py"}}
    for copy, home in (homes | {SPACE / "events.py": ""}).items():
        ours = ROOT / "hear_hf" / home / copy.name
        assert copy.read_bytes() == ours.read_bytes(), f"copy {ours} to {copy.parent}"


def test_the_card_of_the_space_says_how_to_run_it():
    card = yaml.safe_load((SPACE / "README.md").read_text(encoding="utf-8").split("---\n")[1])
    assert (card["sdk"], card["license"], card["models"]) == ("gradio", "mit", [])
    assert (SPACE / card["app_file"]).is_file() and len(card["short_description"]) <= 60


def test_every_file_that_the_card_of_the_space_names_is_uploaded_with_it():
    text = (SPACE / "README.md").read_text(encoding="utf-8")
    named = set(re.findall(r"[\w/]+\.(?:py|txt)\b", text))
    there = {path.name for path in SPACE.iterdir()} | {"model_id.txt"}
    assert {"app.py", "requirements.txt", "model_id.txt"} <= named
    assert named - there == {"examples/push_space.py"} and (ROOT / "examples" / "push_space.py").is_file()


def test_the_space_imports_nothing_of_ours_but_what_is_uploaded_with_it():
    modules = {path.stem for path in SPACE.glob("*.py")} | {"audio"}
    allowed = modules | {"gradio", "matplotlib", "numpy", "soundfile", "soxr", "torch", "torchcodec", "transformers"}
    allowed |= {"huggingface_hub"}
    for path in SPACE.rglob("*.py"):
        imported = re.findall(r"^(?:    )?(?:from|import) (\w+)", path.read_text(encoding="utf-8"), re.MULTILINE)
        others = set(imported) - allowed - sys.stdlib_module_names
        assert others <= {"hear_hf"}, path  # which `sound_events.py` does without


def test_a_client_classifies_by_the_one_endpoint(app, classifier, tmp_path, monkeypatch):
    client_library = pytest.importorskip("gradio_client", reason="it comes with the extra `space`")
    monkeypatch.setenv("GRADIO_ANALYTICS_ENABLED", "False")
    soundfile.write(tmp_path / "low.wav", sound("low", 1.0), RATE)
    page = app.build_app(classifier)
    try:
        _, url, _ = page.launch(prevent_thread_lock=True, quiet=True, ssr_mode=False)
        client = client_library.Client(url, verbose=False, download_files=tmp_path / "client")
        endpoints = client.view_api(return_format="dict", print_info=False)
        assert [*endpoints["named_endpoints"]] == ["/classify"] and not endpoints["unnamed_endpoints"]
        assert classifier.name not in json.dumps(endpoints)
        answer = client.predict(client_library.handle_file(tmp_path / "low.wav"), 1, 0.5, "", api_name="/classify")
    finally:
        page.close()
    assert answer[0]["label"] == "low"
