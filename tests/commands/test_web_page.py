"""The page that `examples/web/build_page.py` builds, in a headless Chromium: its logits against PyTorch's, what it
shows, and whom it talks to."""

import base64
import functools
import json
import os
import re
import threading
from contextlib import ExitStack, contextmanager
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.request import urlopen

import numpy as np
import pytest
import soundfile
import torch

pytest.importorskip("onnx", reason="the build needs `pip install hear_hf[onnx]`")
pytest.importorskip("onnxruntime", reason="the build needs `pip install hear_hf[onnx]`")
pytest.importorskip("onnxscript", reason="the build needs `pip install hear_hf[onnx]`")

import build_page
from chromium import PATIENCE, launch, sync_api
from hear_hf import HEARForAudioClassification
from hear_hf.data.decoding import decode_audio
from helpers import small_model
from space_model import LABELS, RATE, save_trained_classifier, sound

SOUNDS = Path(build_page.__file__).parents[1] / "sounds"
LOGITS = """
async (data) => {
    const [{ classifier }, { decode }] = await Promise.all([import("./app.js"), import("./sound.js")]);
    const bytes = Uint8Array.from(atob(data), (letter) => letter.charCodeAt(0));
    const clip = await decode(bytes.buffer, classifier.about.sampling_rate, 120);
    return [...(await classifier.logits(clip.slice(0, clip.length)))];
}
"""
SAMPLES = LOGITS.replace("await classifier.logits(clip.slice(0, clip.length))", "clip.slice(0, clip.length)")
REACH = """fetch("{}", {{ mode: "no-cors" }}).then(() => "reached", (error) => error.message)"""


class Quiet(SimpleHTTPRequestHandler):
    """Counts the bytes of the files that it sends, and logs nothing."""

    num_sent = 0

    def copyfile(self, source, outputfile):
        Quiet.num_sent += os.fstat(source.fileno()).st_size
        super().copyfile(source, outputfile)

    def log_message(self, *args):
        pass


@contextmanager
def served(folder: Path):
    """The address of a server of these files, which is gone at the end."""
    with ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(folder))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


def build(model: Path, folder: Path, *options: str) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("npm_config_fetch_retries", "0")
        try:
            build_page.main(["--model_name_or_path", str(model), "--output_dir", str(folder), *options])
        except SystemExit as error:
            pytest.skip(f"no ONNX Runtime Web here: {error}")
    return folder


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model") / "tones"
    save_trained_classifier(folder)
    return folder


@pytest.fixture(scope="module")
def site(model, tmp_path_factory):
    return build(model, tmp_path_factory.mktemp("web") / "page", "--dtype", "float32")


@pytest.fixture(scope="module")
def address(site):
    with served(site) as address:
        yield address


@pytest.fixture(scope="module")
def playwright():
    with sync_api.sync_playwright() as playwright:
        yield playwright


@pytest.fixture(scope="module")
def browser(playwright):
    browser = launch(playwright)
    yield browser
    browser.close()


@contextmanager
def opened(browser, address, **settings):
    """The page in a window of its own, ready to hear."""
    context = browser.new_context(**settings)
    page = context.new_page()
    page.set_default_timeout(PATIENCE)
    page.requested = []
    context.on("request", lambda request: page.requested.append(request.url))
    page.goto(address)
    sync_api.expect(page.get_by_role("status")).to_have_text("Ready.", timeout=PATIENCE)
    yield page
    context.close()


@pytest.fixture
def page(browser, address):
    with opened(browser, address) as page:
        yield page


def write(path: Path, *labels: str) -> Path:
    soundfile.write(path, np.concatenate([sound(label, 3.0, seed=3) for label in labels]), RATE)
    return path


def encoded(path: Path) -> str:
    return base64.b64encode(path.read_bytes()).decode()


def choose(page, path: Path) -> None:
    page.get_by_label("File").set_input_files(path)


def expect_status(page, text: str) -> None:
    sync_api.expect(page.get_by_role("status")).to_have_text(re.compile(text), timeout=PATIENCE)


def expect_problem(page, text: str) -> None:
    sync_api.expect(page.get_by_role("alert")).to_contain_text(text, timeout=PATIENCE)


@torch.no_grad()
def test_the_logits_of_a_real_recording_are_pytorch_s(page, model, tmp_path):
    soundfile.write(tmp_path / "bell.wav", decode_audio(SOUNDS / "church_bell.ogg", RATE), RATE)
    found = page.evaluate(LOGITS, encoded(tmp_path / "bell.wav"))
    clip = torch.from_numpy(soundfile.read(tmp_path / "bell.wav", dtype="float32")[0])
    expected = HEARForAudioClassification.from_pretrained(model).eval()(clip[None]).logits[0]
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-3)


@pytest.mark.parametrize("rate", [22_050, 44_100, 48_000])
def test_samples_of_a_file_at_another_rate_are_those_of_our_own_reader(page, tmp_path, rate):
    soundfile.write(tmp_path / "bell.wav", decode_audio(SOUNDS / "church_bell.ogg", rate), rate, subtype="FLOAT")
    found = np.array(page.evaluate(SAMPLES, encoded(tmp_path / "bell.wav")))
    expected = decode_audio(tmp_path / "bell.wav", RATE)
    length = min(len(found), len(expected))
    assert abs(len(found) - len(expected)) <= 2
    assert np.linalg.norm(found[:length] - expected[:length]) < 0.01 * np.linalg.norm(expected)


def test_a_file_gets_its_labels_and_when_each_is_heard(page, tmp_path):
    choose(page, write(tmp_path / "clip.wav", "low", "high"))
    expect_status(page, r"^(low|high) \d+%, ")
    rows = page.get_by_role("row").filter(has=page.get_by_role("img")).all()
    heard = {row.get_by_role("rowheader").inner_text(): row.get_by_role("img") for row in rows}
    heard = {label: strip.get_attribute("aria-label") for label, strip in heard.items()}
    assert sorted(heard) == sorted(LABELS)
    assert re.match(r"heard from 0\.0 to [23]\.", heard["low"]), heard
    assert re.search(r"[34]\.\d to 6\.0 s$", heard["high"]), heard
    assert heard["noise"] == "below 50% throughout"


def test_a_broken_file_is_named_and_the_next_one_is_heard(page, tmp_path):
    (tmp_path / "broken.wav").write_bytes(b"<b>RIFF, but no more")
    choose(page, tmp_path / "broken.wav")
    expect_problem(page, "must be audio that this browser reads")
    choose(page, write(tmp_path / "clip.wav", "noise"))
    expect_status(page, "^noise ")
    assert page.get_by_role("alert").inner_text() == ""


@pytest.mark.parametrize(
    "samples, message",
    [
        (np.zeros(RATE), "must hold sound, found silence"),
        (np.full(800, 0.1), "must last at least 0.1 s, found 0.050 s"),
        (np.full(121 * RATE, 0.1), "must last at most 120 s, found 121.0 s"),
    ],
)
def test_a_clip_that_is_silent_too_short_or_too_long_is_refused(page, tmp_path, samples, message):
    soundfile.write(tmp_path / "clip.wav", samples, RATE)
    choose(page, tmp_path / "clip.wav")
    expect_problem(page, message)
    sync_api.expect(page.get_by_role("table")).to_be_hidden()


def test_without_a_microphone_the_page_says_so(browser, address):
    with opened(browser, address, permissions=["microphone"]) as page:
        page.get_by_role("button", name="Record").click()
        expect_problem(page, "There must be a microphone, found none")


@pytest.fixture(scope="module")
def listening_browser(playwright, tmp_path_factory):
    """A browser whose microphone hears a high tone."""
    tone = write(tmp_path_factory.mktemp("microphone") / "tone.wav", "high", "high")
    switches = ("--use-fake-device-for-media-stream", f"--use-file-for-fake-audio-capture={tone}")
    browser = launch(playwright, *switches)
    yield browser
    browser.close()


def test_without_permission_the_page_asks_for_it(listening_browser, address):
    with opened(listening_browser, address) as page:
        page.get_by_role("button", name="Record").click()
        expect_problem(page, "The microphone must be allowed, found that it is not")


def test_a_microphone_is_heard_as_it_records(listening_browser, address):
    with opened(listening_browser, address, permissions=["microphone"]) as page:
        page.get_by_role("button", name="Record").click()
        sync_api.expect(page.get_by_role("columnheader", name="Now")).to_be_visible(timeout=PATIENCE)
        sync_api.expect(page.get_by_role("columnheader", name=re.compile("0 to [3-9]"))).to_be_visible(
            timeout=PATIENCE
        )
        page.get_by_role("button", name="Stop").click()
        expect_status(page, "^high ")
        sync_api.expect(page.get_by_role("columnheader", name="Whole clip")).to_be_visible()


def test_it_opens_and_hears_without_a_network_once_it_has_loaded(browser, site, tmp_path):
    with ExitStack() as stack:
        with served(site) as address:
            page = stack.enter_context(opened(browser, address))
        with pytest.raises(OSError):
            urlopen(address)
        page.reload()
        expect_status(page, "^Ready")
        choose(page, write(tmp_path / "clip.wav", "high"))
        expect_status(page, "^high ")
        page.get_by_role("button", name="cat").click()
        expect_status(page, r"^(low|high|noise) \d+%")


def test_the_page_talks_to_its_own_server_alone_and_could_talk_to_no_other(page, address, tmp_path):
    choose(page, write(tmp_path / "clip.wav", "low"))
    expect_status(page, "^low ")
    assert len(page.requested) > 5
    assert [url for url in page.requested if not url.startswith((address, f"blob:{address}"))] == []
    (worker,) = page.workers
    with served(tmp_path) as other:
        assert urlopen(other).status == 200
        assert [place.evaluate(REACH.format(other)) for place in (page, worker)] == 2 * ["Failed to fetch"]
        assert [place.evaluate(REACH.format(address)) for place in (page, worker)] == 2 * ["reached"]


@pytest.mark.parametrize("color_scheme", ["light", "dark"])
def test_it_fits_on_a_phone(browser, address, color_scheme, tmp_path):
    with opened(browser, address, viewport={"width": 400, "height": 800}, color_scheme=color_scheme) as page:
        choose(page, write(tmp_path / "clip.wav", "high"))
        expect_status(page, "^high ")
        page.evaluate("document.querySelector('tbody th').textContent = 'Crowing, cock-a-doodle-doo'.repeat(2)")
        assert page.evaluate("document.documentElement.scrollWidth") <= 400
        ink = page.evaluate("getComputedStyle(document.body).color")
        assert ink == ("rgb(0, 0, 0)" if color_scheme == "light" else "rgb(255, 255, 255)")


def test_an_example_is_reached_and_played_by_the_keyboard_alone(page):
    for _ in range(3):
        page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "cat"
    page.keyboard.press("Enter")
    expect_status(page, r"^(low|high|noise) \d+%")
    sync_api.expect(page.locator("audio")).to_be_visible()


def test_all_that_is_shown_has_a_name_for_a_screen_reader(page, tmp_path):
    choose(page, write(tmp_path / "clip.wav", "high"))
    expect_status(page, "^high ")
    tree = page.locator("body").aria_snapshot()
    assert not re.search(r"- (button|img|columnheader|rowheader|link)( \[.*)?:?$", tree, re.MULTILINE), tree
    assert re.search(r'row "high \d+% heard from 0\.0 to 3\.0 s"', tree), tree


def test_the_service_worker_has_a_version_and_the_list_of_what_the_page_loads(site):
    version = re.search('VERSION = "(.*)"', (site / "files.js").read_text())[1]
    names = re.search("FILES = (.*);", (site / "files.js").read_text())[1]
    assert version.startswith("hear-") and {"./", "runtime.mjs", "model.json"} <= set(json.loads(names))


def test_a_regression_is_refused(tmp_path):
    model = small_model(problem_type="regression")
    model.save_pretrained(tmp_path / "model")
    with pytest.raises(SystemExit, match="must score labels, found a regression"):
        build_page.add_model(tmp_path, tmp_path, build_page.PageArguments(str(tmp_path / "model"), tmp_path))


@pytest.mark.parametrize(("name", "pattern"), [("LICENSE_KEY", build_page.LICENCES), ("cat.ogg", "*.ogg")])
def test_a_link_that_leads_out_of_the_model_or_the_sounds_is_refused_by_name(tmp_path, name, pattern):
    (tmp_path / "secret").write_text("private")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / name).symlink_to(tmp_path / "secret")
    with pytest.raises(SystemExit, match=f"must lead to visible files of their own folder, found: .*{name}"):
        build_page.copy_own(tmp_path / "folder", pattern, tmp_path / "page")
    assert not list(tmp_path.glob("page/*"))


@pytest.mark.slow
def test_the_page_of_hear_tiny_loads_less_than_8_mb_and_hears_a_cat(browser, tmp_path):
    folder = build(SOUNDS.parents[1] / "checkpoints" / "hear-tiny", tmp_path / "page")
    before = Quiet.num_sent
    with served(folder) as address, opened(browser, address) as page:
        assert 6_000_000 < Quiet.num_sent - before < 8_000_000
        page.get_by_role("button", name="cat").click()
        expect_status(page, r"^(Cat|Meow) \d+%")
