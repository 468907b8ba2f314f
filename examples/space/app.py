"""Names the sounds in a clip and says when each is heard: a web page for any HEAR classifier, and a Space of the Hub.

    HEAR_MODEL=runs/digits python app.py

The model is a folder or a repository of the Hub, at one revision as OWNER/NAME@REVISION. Without `HEAR_MODEL` it is
the one that `model_id.txt` beside this file names, or else `checkpoints/hear-tiny` of the repository of hear_hf.
"""

import html
import os
import re
import sys
from functools import lru_cache
from pathlib import Path

import gradio as gr
import numpy as np

from audio.decoding import decode_audio
from audio.visitors import MAX_SECONDS, read_clip
from clip_folder import clip_folder
from hearing_figure import draw
from sound_events import HEAR_HF_INSTALLED, Classifier, hear

MAX_FILE_SIZE = "200mb"
MAX_WAITING = 20  # visitors: one more is told to come back
REPOSITORY = re.compile(r"[\w.-]{1,96}/[\w.-]{1,96}(@[\w./-]{1,96})?")
EXAMPLE_RATE = 32_000

TITLE = "# What is heard, and when"
INTRODUCTION = """
Record a sound or drop a file. [HEAR](https://arxiv.org/abs/2603.26098) names what is in the whole clip, then listens
to short windows of it one after the other, which shows when each label is heard.
"""
FONTS = ["system-ui", "sans-serif"]  # the visitor's own: none is fetched
THEME = gr.themes.Default(primary_hue="blue", font=FONTS, font_mono=FONTS)
CSS = ".gradio-container {max-width: 1200px !important; margin: 0 auto} .plot img {width: 100%}"


def configured_name() -> str:
    """The model to serve: `HEAR_MODEL`, else the one line of `model_id.txt`, else the checkpoint of the repository."""
    here = Path(__file__).parent
    file, ours = here / "model_id.txt", here / "../../checkpoints/hear-tiny"
    if name := os.environ.get("HEAR_MODEL", "").strip():
        return name
    if name := file.read_text(encoding="utf-8").strip() if file.is_file() else "":
        return str(here / name) if (here / name).is_dir() else name
    if (ours / "config.json").is_file():
        return os.path.relpath(ours)
    raise ValueError(
        f"A model must be named by the environment variable HEAR_MODEL or in {file}, found none. Give a folder or "
        "a repository of the Hub, for example: HEAR_MODEL=runs/digits python app.py"
    )


def example_files() -> dict[str, Path]:
    """The clips to offer, by what is in them: of the folder `sounds` beside this file, or beside its folder."""
    here = Path(__file__).parent
    files = sorted((*here.glob("sounds/*.ogg"), *here.glob("../sounds/*.ogg")))
    return {file.stem.replace("_", " "): file for file in files}


def visitors_models() -> list[str]:
    """What visitors may load beside the app's own model: names in `HEAR_VISITOR_MODELS`, `*` for all of the Hub."""
    return os.environ.get("HEAR_VISITOR_MODELS", "").split() if HEAR_HF_INSTALLED else []


@lru_cache(maxsize=1)
def visitors_classifier(name: str) -> Classifier:
    """A model that a visitor typed, where whoever runs the app allows it: its code never runs."""
    allowed = visitors_models()
    if name in allowed:
        return Classifier(name)
    if "*" not in allowed:
        raise ValueError(f"The model must be one that this page offers, found: {shortened(name)}")
    if not REPOSITORY.fullmatch(name) or os.path.exists(name):
        raise ValueError(f"The model must be a repository of the Hub, as OWNER/NAME, found: {shortened(name)}")
    return Classifier(name)


def shortened(name: str) -> str:
    return name if len(name) <= 100 else f"{name[:100]}..."


def example(file: Path) -> tuple[int, np.ndarray]:
    """The rate and int16 samples of a clip, (num_samples,), for the page to play: it may read few folders itself."""
    return EXAMPLE_RATE, (32_767 * decode_audio(file, EXAMPLE_RATE).clip(-1, 1)).astype(np.int16)


def classify(classifier: Classifier, path: str, window_seconds: float, threshold: float, track=iter):
    """The scores of the whole clip by label, the picture, and the rows of the table."""
    hearing = hear(classifier, read_clip(path, classifier.sampling_rate), window_seconds, track)
    scores = dict(zip(hearing.labels, hearing.clip_scores.tolist(), strict=True))
    rows = [
        [f"{start:.2f}", f"{end:.2f}", label, f"{score:.2f}"]
        for start, end, label, score in hearing.segments(threshold)
    ]
    return scores, draw(hearing), rows


def build_app(classifier: Classifier) -> gr.Blocks:
    """The page. `classifier` serves unless a visitor types another model."""
    files = example_files()

    def respond(path, window_seconds, threshold, name, progress=gr.Progress()):  # noqa: B008 (gradio's way)
        if path is None:
            return None, None, None
        try:
            chosen = classifier if name.strip() in ("", classifier.name) else visitors_classifier(name.strip())
            return classify(chosen, path, window_seconds, threshold, progress.tqdm)
        except ValueError as error:
            raise gr.Error(html.escape(str(error), quote=False), duration=None, print_exception=False) from error

    with gr.Blocks(title="HEAR", analytics_enabled=False, delete_cache=(3600, 3600)) as app:
        gr.Markdown(TITLE + INTRODUCTION)
        with gr.Row():
            with gr.Column(scale=2, min_width=320):
                audio = gr.Audio(type="filepath", sources=["upload", "microphone"], label="Sound")
                # `gr.Examples` would keep its clips in the cache, out of which `delete_cache` sweeps them.
                examples = gr.Dataset(
                    components=["textbox"], samples=[[name] for name in files], label="Examples", visible=bool(files)
                )
                window = gr.Slider(
                    *(0.5, 10, 2),
                    step=0.5,
                    label="Window (s)",
                    info="Shorter: when? Longer: what?",
                    visible=not classifier.has_frames,
                )
                info = "0.5: each label's own" if classifier.has_thresholds else "Least score in the table"
                threshold = gr.Slider(0.05, 0.95, 0.5, step=0.05, label="Threshold", info=info)
                own = "" if os.path.exists(classifier.name) else classifier.name  # no visitor needs the server's path
                name = gr.Textbox(own, label="Model", info="A repository of the Hub", visible=bool(visitors_models()))
            with gr.Column(scale=3, min_width=320):
                labels = gr.Label(num_top_classes=5, label="In the whole clip")
                plot = gr.Plot(label="Over time", show_label=False, elem_classes="plot")
        table = gr.Dataframe(headers=["Start (s)", "End (s)", "Label", "Score"], label="Heard when", max_height=400)
        gr.Markdown(f"Up to {MAX_SECONDS // 60} minutes. Clips are deleted within two hours.")
        examples.click(lambda sample: example(files[sample[0]]), examples, audio, api_visibility="private")
        inputs, outputs = [audio, window, threshold, name], [labels, plot, table]
        triggers = [audio.change, window.change, threshold.change, name.submit]
        # While one run lasts, a slider moves on: only where it comes to rest counts.
        gr.on(triggers, respond, inputs, outputs, trigger_mode="always_last", api_name="classify")
    # Nobody passes the queue by, which one run at a time works off.
    return app.queue(max_size=MAX_WAITING, default_concurrency_limit=1, api_open=False)


def main() -> None:
    try:
        classifier = Classifier(configured_name(), configured=True)
    except ValueError as error:
        sys.exit(str(error))
    with clip_folder():
        build_app(classifier).launch(theme=THEME, css=CSS, max_file_size=MAX_FILE_SIZE, ssr_mode=False)


if __name__ == "__main__":
    main()
