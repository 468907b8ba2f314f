"""`checkpoints/hear-tiny` as a clone has it: small, complete, and right about the recordings of `examples/sounds/`."""

import re
from pathlib import Path

import pytest
import torch
from huggingface_hub import ModelCard
from safetensors import safe_open
from transformers import AutoFeatureExtractor, AutoModelForAudioClassification, pipeline

import hear_hf  # noqa: F401 (registers HEAR with the Auto classes)
import predict
from hear_hf.data.decoding import decode_audio
from hear_hf.sharing.checks import check_card, read_json

ROOT = Path(__file__).parents[2]
MAKEFILE = ROOT / "Makefile"
SOUNDS = ROOT / "examples" / "sounds"
FILES = {"README.md", "LICENCES.md", "config.json", "preprocessor_config.json", "model.safetensors"}
FILES |= {"modules.json", "sentence_bert_config.json"}
MAX_SIZE = 4_000_000  # bytes of the weights
NUM_LABELS = 527
RATE = 16_000
# What may be the likeliest label of each recording.
HEARD = {
    "cat": {"Cat", "Meow", "Caterwaul"},
    "church_bell": {"Bell", "Church bell"},
    "guitar": {"Music", "Guitar", "Acoustic guitar", "Electric guitar", "Plucked string instrument", "Jazz"},
    "rooster": {"Chicken, rooster", "Crowing, cock-a-doodle-doo", "Fowl"},
    "thunder": {"Thunder", "Thunderstorm"},
    "train": {"Train", "Vehicle", "Rail transport", "Railroad car, train wagon"},
    "typing": {"Typing", "Computer keyboard"},
    "voice": {"Speech", "Male speech, man speaking", "Narration, monologue"},
}
MACHINE_PATH = re.compile(r"(?<![\w.:/])/(?:work|home|root|tmp|mnt|data|Users)\b|[A-Z]:\\")


def test_the_folder_holds_a_model_its_card_and_the_licences_alone(shipped):
    there = {path.name for path in shipped.iterdir() if path.suffix != ".py" and path.name != "__pycache__"}
    assert there == FILES  # the code, which git leaves out, is the package's
    assert (shipped / "model.safetensors").stat().st_size < MAX_SIZE


def test_the_weights_are_float16_on_disk_and_float32_once_loaded(shipped):
    with safe_open(shipped / "model.safetensors", "pt") as file:
        dtypes = {name: file.get_slice(name).get_dtype() for name in file.keys()}
    assert {dtype for name, dtype in dtypes.items() if not name.endswith("num_batches_tracked")} == {"F16"}
    model = AutoModelForAudioClassification.from_pretrained(shipped)
    assert model.dtype == torch.float32  # which is faster on a CPU, and fine-tunes
    assert all(value.isfinite().all() for value in model.state_dict().values())


def test_it_names_527_sounds_of_which_a_clip_may_have_any_number(shipped):
    config = read_json(shipped / "config.json")
    assert len(set(config["id2label"].values())) == NUM_LABELS and config["id2label"]["0"] == "Speech"
    assert {name: str(index) for name, index in config["label2id"].items()} == {
        name: index for index, name in config["id2label"].items()
    }
    assert config["problem_type"] == "multi_label_classification"
    assert AutoFeatureExtractor.from_pretrained(shipped).sampling_rate == config["sampling_rate"] == RATE


@pytest.fixture(scope="module")
def classifier(shipped):
    return pipeline("audio-classification", model=str(shipped))


@pytest.mark.parametrize("name", HEARD)
def test_the_likeliest_label_of_each_recording_is_right(classifier, name):
    clip = {"array": decode_audio(SOUNDS / f"{name}.ogg", RATE), "sampling_rate": RATE}
    assert classifier(clip)[0]["label"] in HEARD[name]


def test_each_recording_has_an_expectation_and_a_credit():
    names = {path.stem for path in SOUNDS.glob("*.ogg")}
    credits = (SOUNDS / "README.md").read_text(encoding="utf-8")
    row = r"^\| `(\w+)\.ogg` \| \w.* \| \w.* \| \[.+\]\(https:\S+\) \| CC0 1\.0 \|$"
    assert names == set(HEARD) == set(re.findall(row, credits, re.MULTILINE))
    assert sum(path.stat().st_size for path in SOUNDS.iterdir()) < 1_000_000


def test_the_readme_shows_what_the_demo_shows(shipped, monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    command = re.search(r"^demo:.*\n.*/python examples/predict\.py (.+)$", MAKEFILE.read_text(), re.MULTILINE)
    predict.main(command[1].split())
    shown = re.findall(r"^examples/sounds/.*$", (ROOT / "README.md").read_text(encoding="utf-8"), re.MULTILINE)
    table = capsys.readouterr().out.splitlines()[1:]
    assert [re.sub(r" \d\.\d\d\b", "", line) for line in shown] == [re.sub(r" \d\.\d\d\b", "", line) for line in table]
    scores = [[float(score) for score in re.findall(r" (\d\.\d\d)\b", "\n".join(text))] for text in (shown, table)]
    assert scores[0] == pytest.approx(scores[1], abs=0.011)  # which may be rounded the other way


def test_its_texts_are_complete_and_name_no_folder_of_a_machine(shipped):
    card = ModelCard.load(shipped / "README.md")
    check_card(card, shipped)
    assert (card.data.pipeline_tag, card.data.library_name) == ("audio-classification", "transformers")
    assert card.data.license and card.data.eval_results
    texts = {path.name: path.read_text(encoding="utf-8") for path in shipped.glob("*.[mj]*")}
    texts |= {"README.md of the repository": (ROOT / "README.md").read_text(encoding="utf-8")}
    assert not [name for name, text in texts.items() if "TO FILL" in text]
    assert not [(name, found[0]) for name, text in texts.items() if (found := MACHINE_PATH.search(text))]
