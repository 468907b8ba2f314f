"""The cards of `hear_hf.sharing.cards`: every template with every kind of model, with and without its training run."""

import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from huggingface_hub import ModelCardData
from jinja2 import ChoiceLoader, DictLoader, UndefinedError
from transformers import HubertConfig, HubertForSequenceClassification, TrainingArguments

import hear_hf
from golden import SMALL_QUANTIZER, golden_model
from hear_hf import HEARConfig, HEARForAudioFrameClassification
from hear_hf.markdown import code_span, plain
from hear_hf.sharing import cards
from hear_hf.sharing.cards import (
    CardFacts,
    TaughtLabel,
    TeacherFacts,
    TeachingFacts,
    TrainingRun,
    classifier_card,
    distilled_card,
    frames_card,
    pretraining_card,
    render,
)
from hear_hf.sharing.checks import empty_sections
from helpers import SMALL, small_model
from original_layout import PRETRAINING, TOKENIZER_TRAINING

PACKAGE = Path(hear_hf.__file__).parent
TEMPLATES = PACKAGE / "sharing" / "templates"
MODEL_TEMPLATES = sorted(set(TEMPLATES.glob("*.md")) - {TEMPLATES / "dataset_card.md"})
KINDS = ("one label", "several labels", "not HEAR", "bare", "pretraining", "quantizer", "quantizer training")
DISTILLED = ("distilled", "distilled without labels")
KINDS += (*DISTILLED, "frames", "taught", "adapter")
CLASSIFIERS = (*KINDS[:3], "taught", "adapter")
TEACHING = TeachingFacts(
    [TaughtLabel("knock", 10, 0.9), TaughtLabel("bark", 1, None)],
    num_views=4,
    strength=0.1,
    num_folds=5,
    spread={"accuracy": 0.03},
    num_unknown=100,
    window_seconds=2.0,
    false_alarm_rate=0.01,
    measured_rate=0.02,
)


def model_of(kind):
    if kind in DISTILLED:
        return small_model(problem_type="multi_label_classification")
    if kind in ("taught", "adapter"):
        return small_model(problem_type="multi_label_classification")
    if kind in KINDS[:2]:
        return small_model(problem_type=f"{'single' if kind == 'one label' else 'multi'}_label_classification")
    if kind == "not HEAR":
        sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
        return HubertForSequenceClassification(HubertConfig(**sizes, num_conv_pos_embedding_groups=2, num_labels=3))
    if kind == "bare":
        return small_model().hear
    if kind == "frames":
        return HEARForAudioFrameClassification(HEARConfig(**SMALL))
    if kind == "pretraining":
        return golden_model(PRETRAINING.main, **SMALL, codebook_size=64)
    training = golden_model(TOKENIZER_TRAINING.main, **SMALL_QUANTIZER)
    return training if kind == "quantizer training" else training.quantizer


@pytest.fixture(scope="module")
def models():
    return {kind: model_of(kind) for kind in KINDS}


@pytest.fixture
def run(tmp_path):
    args = TrainingArguments(str(tmp_path), warmup_steps=0.1, gradient_accumulation_steps=3, use_cpu=True)
    return TrainingRun(args, 1234, 5.5, {"train": 60, "test": 7}, crop_seconds=2.5, origin="It had no teacher.")


def write_card(kind, model, scores=None, **facts):
    if kind in DISTILLED:
        teachers = [TeacherFacts("alice/teacher", "mit", 983_599), TeacherFacts("words")]
        found = CardFacts(model, 16_000, "my_run", scores or {}, **facts, teachers=teachers)
        found.has_labels = kind == DISTILLED[0]
        return distilled_card(found)
    if kind == "taught":
        facts["teaching"] = TEACHING
    if kind == "adapter":
        facts |= {"is_adapter": True, "base_model": "alice/base"}
    write = classifier_card if kind in CLASSIFIERS else frames_card if kind == "frames" else pretraining_card
    return write(CardFacts(model, 16_000, "my_run", scores or {}, **facts))


def card_of(kind, model, **facts):
    return write_card(kind, model, {"accuracy" if kind in CLASSIFIERS else "loss": 0.5}, **facts)


@pytest.mark.parametrize("has_run", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_a_card_of_any_model_is_whole(models, run, kind, has_run):
    card = card_of(kind, models[kind], source="`mine`", run=run if has_run else None)
    assert card.text.startswith("\n# my_run\n") and empty_sections(card.text) == []
    assert "{{" not in card.text and "{%" not in card.text and "\n\n\n" not in card.text
    assert ("| 1234 (5.5 epochs) |" in card.text) == ("| batch size | 24 |" in card.text) == has_run
    assert "Data: `mine`" in card.text and "| 0.5000 |" in card.text
    assert not re.search(r"(?<!!)\[[^\]]*\]\((?!https?:)", card.text)  # a link to a file that is not uploaded
    for title in ("How it works", "Differences from the original code", "Licence and citation"):
        assert (f"## {title}" in card.text) == (kind != "not HEAR")


@pytest.mark.parametrize("kind", KINDS)
def test_a_card_of_any_model_needs_neither_run_source_nor_scores(models, kind):
    card = write_card(kind, models[kind])
    assert empty_sections(card.text) == [] and "## Training" not in card.text
    assert ("## Results" in card.text) == (kind == "taught")  # they are how it was taught


@pytest.mark.parametrize("kind", KINDS)
def test_a_card_says_nothing_of_data_and_runs_that_are_not_the_user_s(models, run, kind):
    text = card_of(kind, models[kind], run=run).text
    assert not re.search("FSDD|ESC-50|eSpeak|YAMNet|Arabic|these recordings|our runs|Those above", text)


def test_the_sizes_in_a_card_are_those_of_the_model(models):
    text = card_of("one label", models["one label"]).text
    assert (
        "2 pre-norm transformer layers" in text and "windows of 0.6 s" in text and "within segments of\n  3 s" in text
    )


def test_the_card_of_a_distilled_model_names_its_teachers_and_their_licences(models):
    card = card_of("distilled", models["distilled"])
    assert "| `alice/teacher` | 1.0 M | mit |" in card.text and "| `words` | not known | not stated |" in card.text
    assert "It names 7 kinds of sound." in card.text and card.data.pipeline_tag == "audio-classification"
    card = card_of("distilled without labels", models["distilled"])
    assert "no labels yet" in card.text and "## Labels" not in card.text and "pipeline(" not in card.text


def names_in(template):
    return sorted(set(re.findall(r"\bcard(?:\.\w+)+", template.read_text())))


NAMES = [(template.name, name) for template in MODEL_TEMPLATES for name in names_in(template)]


@pytest.mark.parametrize(("template", "name"), NAMES)
def test_a_misspelt_name_in_a_template_is_an_error(models, run, monkeypatch, template, name):
    text = re.sub(rf"{re.escape(name)}\b", f"{name}z", (TEMPLATES / template).read_text())
    loader = ChoiceLoader([DictLoader({template: text}), cards.ENVIRONMENT.loader])
    monkeypatch.setattr(cards, "ENVIRONMENT", cards.ENVIRONMENT.overlay(loader=loader))
    with pytest.raises(UndefinedError, match=f"has no attribute '{name.rpartition('.')[2]}z'"):
        for kind in KINDS:
            card_of(kind, models[kind], run=run)
            card_of(kind, models[kind], source="`mine`", base_model="alice/base", run=run)


def test_a_name_that_is_not_given_is_an_error():
    with pytest.raises(UndefinedError, match="'data' is undefined"):
        render("dataset_card.md", ModelCardData(), title="t", repository="a/b")


def test_cards_need_no_file_but_the_package_s(tmp_path):
    shutil.copytree(PACKAGE, tmp_path / "hear_hf", ignore=shutil.ignore_patterns("__pycache__"))
    script = (
        "import hear_hf\n"
        "from hear_hf.sharing.cards import CardFacts, classifier_card\n"
        "config = hear_hf.HEARConfig(hidden_size=16, num_hidden_layers=1, num_labels=2)\n"
        "card = classifier_card(CardFacts(hear_hf.HEARForAudioClassification(config), 16_000, 'mine'))\n"
        "print(hear_hf.__file__, card.text)"
    )
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    command = [sys.executable, "-c", script]
    found = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True).stdout
    assert found.startswith(str(tmp_path)) and "kawano2026hear" in found


def test_the_folder_of_a_base_model_is_no_base_model_of_the_hub(models, tmp_path):
    (tmp_path / "pretrained").mkdir()
    card = card_of("one label", models["one label"], base_model=str(tmp_path / "pretrained"))
    assert card.data.base_model is None and "started from `pretrained`" in card.text
    card = card_of("one label", models["one label"], base_model="alice/base")
    assert card.data.base_model == "alice/base" and "started from `alice/base`" in card.text


def test_the_name_of_a_teacher_or_of_a_taught_label_ends_no_cell_and_is_no_markup(models):
    hostile, shown = "a|<img src=x>_b_", r"| `a\|<img src=x>_b_` |"
    facts = CardFacts(models["distilled"], 16_000, "my_run", teachers=[TeacherFacts(hostile)])
    assert shown in distilled_card(facts).text
    taught = replace(TEACHING, labels=[TaughtLabel(hostile, 3, None)])
    assert shown in classifier_card(CardFacts(models["taught"], 16_000, "my_run", teaching=taught)).text


def test_plain_text_has_no_markup():
    assert plain("_a_ ~~b~~ $c$\x1b *d* my_run") == r"\_a\_ \~\~b\~\~ \$c\$ \*d\* my_run"


def test_a_code_span_shows_any_text_as_it_is():
    assert code_span("a``b`c") == "``` a``b`c ```" and code_span("plain\nlines") == "`plain lines`"
