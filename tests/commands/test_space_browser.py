"""The page of `examples/space/` in a headless Chromium: clips dropped on it, what it shows, and whom it talks to."""

import base64
import os
import re
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import soundfile

from space_model import RATE, save_trained_classifier, sound

pytest.importorskip("gradio", reason="the page needs the extra `space` (gradio)")
from chromium import PATIENCE, launch, sync_api

APP = Path(__file__).parents[2] / "examples" / "space" / "app.py"
LOOPBACK = {"127.0.0.1", "localhost", "::1"}
# Put before the app as `sitecustomize`: notes each host that the server's Python looks up or connects to.
WATCH = """
import os
import sys

def watch(event, args):
    if event == "socket.getaddrinfo" or event == "socket.connect" and isinstance(args[1], tuple):
        host = args[0] if event == "socket.getaddrinfo" else args[1][0]
        with open(os.environ["HOSTS"], "a") as file:
            print(host, file=file)

sys.addaudithook(watch)
"""
DROP = """
async ([name, data]) => {
    const bytes = Uint8Array.from(atob(data), c => c.charCodeAt(0));
    const transfer = new DataTransfer();
    transfer.items.add(new File([bytes], name, {type: "audio/wav"}));
    return transfer;
}
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """The running app: its address, its log, and the file of the hosts that it spoke to."""
    folder = tmp_path_factory.mktemp("space")
    save_trained_classifier(folder / "tones")
    (folder / "sitecustomize.py").write_text(WATCH)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    settings = {
        "HEAR_MODEL": "tones",
        "GRADIO_SERVER_PORT": str(port),
        "GRADIO_TEMP_DIR": str(folder / "uploads"),
        "HOSTS": str(folder / "hosts"),
        "PYTHONPATH": str(folder),
    }
    inherited = {name: value for name, value in os.environ.items() if name != "HF_HUB_OFFLINE"}
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, APP], cwd=folder, env=inherited | settings, stdout=log, stderr=subprocess.STDOUT
        )
    try:
        while "Running on local URL" not in (folder / "log").read_text():
            assert process.poll() is None, (folder / "log").read_text()
            time.sleep(0.2)
        yield f"http://127.0.0.1:{port}", folder / "log", folder / "hosts"
    finally:
        process.terminate()
        process.wait()


@pytest.fixture(scope="module")
def browser():
    with sync_api.sync_playwright() as playwright:
        browser = launch(playwright)
        yield browser.new_context()
        browser.close()


@pytest.fixture
def page(server, browser):
    page = browser.new_page()
    page.set_default_timeout(PATIENCE)
    page.requested = []
    page.on("request", lambda request: page.requested.append(request.url))
    page.goto(server[0])
    yield page
    page.close()


def drop(page, path):
    """Drops a file on the page as from a file manager."""
    data = base64.b64encode(path.read_bytes()).decode()
    transfer = page.evaluate_handle(DROP, [path.name, data])
    page.get_by_text("Drop Audio Here").dispatch_event("drop", {"dataTransfer": transfer})


def write(path, label):
    soundfile.write(path, sound(label, 3.0, seed=3), RATE)
    return path


def expect_label(page, label):
    sync_api.expect(page.get_by_test_id("label-output-value")).to_have_text(label, timeout=PATIENCE)


def test_a_dropped_wav_gets_its_label_a_picture_and_a_row(page, tmp_path):
    drop(page, write(tmp_path / "clip.wav", "high"))
    expect_label(page, "high")
    sync_api.expect(page.locator(".plot img")).to_be_visible()
    sync_api.expect(page.get_by_role("gridcell", name="high")).to_be_visible()


def test_a_broken_file_shows_a_message_and_the_app_goes_on(page, server, tmp_path):
    (tmp_path / "broken.wav").write_bytes(b"<b>RIFF, but no more")
    drop(page, tmp_path / "broken.wav")
    message = page.get_by_test_id("toast-body")
    sync_api.expect(message).to_contain_text("broken.wav must be audio that soundfile or torchcodec reads")
    sync_api.expect(message).to_contain_text("begins b'<b>RIFF, but")  # as text, not as HTML
    assert "Traceback" not in page.inner_text("body") and "Traceback" not in server[1].read_text()
    page.get_by_label("Clear").first.click()
    drop(page, write(tmp_path / "clip.wav", "low"))
    expect_label(page, "low")


def test_an_example_fits_on_a_phone(page):
    page.set_viewport_size({"width": 400, "height": 800})
    page.reload()  # a phone is narrow from the start; a busy browser may lay out a table before it is resized
    page.get_by_text("church bell").click()
    sync_api.expect(page.get_by_test_id("label-output-value")).to_have_text(re.compile("low|high|noise"))
    sync_api.expect(page.locator(".plot img")).to_be_visible()
    page.wait_for_function("document.documentElement.scrollWidth <= 400")  # a busy browser lays the page out later


def test_nothing_leaves_the_machine(page, server, tmp_path):
    drop(page, write(tmp_path / "clip.wav", "high"))
    expect_label(page, "high")
    assert len(page.requested) > 5
    assert [url for url in page.requested if not url.startswith((server[0], "data:", "blob:"))] == []
    hosts = set(server[2].read_text().split())
    assert hosts and hosts <= LOOPBACK, hosts
