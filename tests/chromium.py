"""The system's Chromium, for tests that drive a page: where there is none, a file that imports this is skipped."""

import shutil

import pytest

sync_api = pytest.importorskip("playwright.sync_api", reason="driving a browser needs playwright")
PATH = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
if PATH is None:
    pytest.skip("no Chromium on the PATH", allow_module_level=True)

SWITCHES = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync"
)
PATIENCE = 60_000  # ms, for a busy machine


def launch(playwright, *switches: str):
    """A browser that talks to nobody by itself."""
    return playwright.chromium.launch(executable_path=PATH, args=[*SWITCHES.split(), *switches])
