"""The pages for users: their Python runs and gives what its comments state, and their commands and links exist."""

import argparse
import importlib
import inspect
import re
import shlex
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[2]
PAGES = ["README.md", "MODEL_CARD.md", "examples/README.md"]
PAGES += sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md"))
FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"\]\((?!https?:|mailto:)([^)#\s]*)(?:#([\w-]+))?\)")
STATED = re.compile(
    r"^(outputs?\S*|inputs\S*|codes\S*|len\(\S+\)|model\.num_parameters\(\)) +# (\([\d, ]+\)|[\d,]+)", re.MULTILINE
)
# The least of what each page must hold, so that a pattern which no longer matches is noticed.
NUM_STATEMENTS = {"MODEL_CARD.md": 9, "docs/pretraining.md": 2}
NUM_COMMANDS = {
    "README.md": 8,
    "docs/experiments.md": 11,
    "docs/pretraining.md": 8,
    "docs/benchmarks.md": 6,
    "docs/distillation.md": 2,
    "docs/free-sounds.md": 4,
    "docs/hear-tiny.md": 7,
    "docs/embeddings.md": 6,
}
PROGRAMS = ("make", "git", "cd", "pip", "curl", "unzip", "hf", "awk", "python")
OPTIONAL = ("onnx", "onnxruntime", "gradio")  # of extras that the oldest set does without


def read(page):
    return (ROOT / page).read_text(encoding="utf-8")


def blocks(page, language):
    return [text for found, text in FENCE.findall(read(page)) if found == language]


def commands(page):
    """The words of each shell command, with the variables that the page sets filled in."""
    lines = "\n".join(blocks(page, "bash")).replace("\\\n", "").splitlines()
    values = dict(re.findall(r'^([A-Z_]+)="?(.*?)"?$', "\n".join(lines), re.MULTILINE))
    for line in lines:
        line = re.sub(r"\$([A-Z_]+)", lambda match: values.get(match[1], match[0]), line)
        words = shlex.split(line, comments=True)
        while words and re.match(r"[A-Z_]+=", words[0]):
            words = words[1:]
        if words:
            yield words


def imports_a_mobile_runtime(block):
    """Whether tests/mobile runs this block: it needs a package that only an environment of its own has."""
    return re.search(r"^(import|from) (executorch|litert_torch)\b", block, re.MULTILINE) is not None


def anchors(text):
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", FENCE.sub("", text), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES)
def test_every_block_is_in_a_language_that_is_checked_or_quoted(page):
    assert read(page).count("```") == 2 * len(FENCE.findall(read(page)))
    assert {language for language, _ in FENCE.findall(read(page))} <= {"python", "bash", "bibtex", "text"}


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "python")])
def test_every_block_runs_and_gives_what_its_comments_state(page, tmp_path, monkeypatch, request):
    monkeypatch.chdir(tmp_path)
    if "checkpoints/hear-tiny" in "".join(blocks(page, "python")):  # which runs in the clone, and writes nothing there
        (tmp_path / "checkpoints" / "hear-tiny").parent.mkdir()
        (tmp_path / "checkpoints" / "hear-tiny").symlink_to(request.getfixturevalue("shipped"))
        (tmp_path / "examples").symlink_to(ROOT / "examples")
    namespace, stated = {}, []
    for block in blocks(page, "python"):
        if imports_a_mobile_runtime(block):
            continue
        exec(compile(block, page, "exec"), namespace)
        for expression, value in STATED.findall(block):
            found = eval(expression, namespace)
            found = tuple(found) if isinstance(found, torch.Size) else found
            assert found == (eval(value) if "(" in value else int(value.replace(",", ""))), expression
            stated.append(expression)
    assert len(stated) >= NUM_STATEMENTS.get(page, 0), stated


def test_the_pages_that_must_hold_python_do():
    assert {"README.md", "docs/finetuning.md", "docs/deployment.md", *NUM_STATEMENTS} <= {
        page for page in PAGES if blocks(page, "python")
    }


class Parsed(Exception):
    pass


@pytest.mark.parametrize("page", PAGES)
def test_every_command_exists_and_takes_its_options(page, monkeypatch):
    parse = argparse.ArgumentParser.parse_known_args

    def parse_only(self, *args, **kwargs):
        _, unknown = parse(self, *args, **kwargs)
        assert unknown == []
        raise Parsed

    monkeypatch.setattr(argparse.ArgumentParser, "parse_known_args", parse_only)
    targets = re.findall(r"^([a-z-]+):", read("Makefile"), re.MULTILINE)
    num_commands = 0
    for words in commands(page):
        if words[0] == "make":
            assert words[1] in targets
        scripts = [word for word in words if word.endswith(".py")]
        if not scripts:
            assert words[0] in PROGRAMS, words
            continue
        assert (ROOT / scripts[0]).is_file(), words
        num_commands += 1
        if arguments := words[words.index(scripts[0]) + 1 :]:
            monkeypatch.syspath_prepend(str((ROOT / scripts[0]).parent))
            monkeypatch.setattr(sys, "argv", [scripts[0], *arguments])
            check_arguments(Path(scripts[0]).stem, arguments)
    assert num_commands >= NUM_COMMANDS.get(page, 0)


def check_arguments(module, arguments):
    """Checks that a script takes these words; `parse_known_args` must raise `Parsed`, and nothing runs."""
    try:
        script = importlib.import_module(module)
    except ImportError as error:
        assert error.name in OPTIONAL or "pip install" in str(error), arguments
        return
    signature = inspect.signature(script.main)
    if signature.parameters and "argv" not in signature.parameters:  # it takes them one by one
        signature.bind(*arguments)
        return
    with pytest.raises(Parsed):
        script.main()


@pytest.mark.parametrize("page", [*PAGES, "CONTRIBUTING.md", "CHANGELOG.md"])
def test_every_link_within_the_repository_leads_somewhere(page):
    for path, anchor in LINK.findall(read(page)):
        target = (ROOT / page).parent / path if path else ROOT / page
        assert target.exists(), path
        assert not anchor or anchor in anchors(target.read_text(encoding="utf-8")), (path, anchor)


def test_the_reader_finds_every_page_from_the_readme():
    linked = {path for path, _ in LINK.findall(read("README.md"))}
    assert {*PAGES, "CONTRIBUTING.md", "CHANGELOG.md", "LICENSE"} - {"README.md"} <= linked


@pytest.mark.parametrize("page", ["docs/known-issues.md", "docs/integrations.md"])
def test_each_row_names_a_test_that_there_is(page):
    named = re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", read(page))
    assert len(named) > 10
    for file, test in named:
        assert f"def {test}" in read(file), (file, test)


def test_the_versions_of_what_reads_untrusted_input_are_those_that_are_tested():
    text, pinned = read("docs/security.md"), read("constraints.txt") + read("examples/space/requirements.txt")
    section = text.partition("## What reads untrusted input")[2]
    stated = re.findall(r"(\w+) (\d[\d.]+\d)", section)
    assert len(stated) > 10
    assert [one for one in stated if "==".join(one) not in pinned] == [("libsndfile", "1.2.2")]
    assert "SECURITY.md" in text and "docs/security.md" in read("SECURITY.md")
