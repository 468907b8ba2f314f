"""README.md and MODEL_CARD.md: their Python runs and gives what its comments state, their commands exist and parse."""

import argparse
import importlib
import re
import shlex
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[2]
STATED = re.compile(
    r"^(outputs?\S*|inputs\S*|len\(\S+\)|model\.num_parameters\(\)) +# (\([\d, ]+\)|[\d,]+)", re.MULTILINE
)


def blocks(name, language):
    text = (ROOT / name).read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


def commands(name):
    """The words of each shell command, with the variables that the page sets filled in."""
    lines = "\n".join(blocks(name, "bash")).replace("\\\n", "").splitlines()
    values = dict(re.findall(r'^([A-Z_]+)="?(.*?)"?$', "\n".join(lines), re.MULTILINE))
    for line in lines:
        line = re.sub(r"\$([A-Z_]+)", lambda match: values.get(match[1], match[0]), line)
        words = shlex.split(line, comments=True)
        while words and re.match(r"[A-Z_]+=", words[0]):
            words = words[1:]
        if words:
            yield words


@pytest.mark.parametrize(("name", "num_statements"), [("README.md", 8), ("MODEL_CARD.md", 2)])
def test_every_block_runs_and_gives_what_its_comments_state(name, num_statements, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    namespace, stated = {}, []
    for block in blocks(name, "python"):
        exec(compile(block, name, "exec"), namespace)
        for expression, value in STATED.findall(block):
            found = eval(expression, namespace)
            found = tuple(found) if isinstance(found, torch.Size) else found
            assert found == (eval(value) if "(" in value else int(value.replace(",", ""))), expression
            stated.append(expression)
    assert len(stated) == num_statements, stated


OPTIONAL = ("onnx", "onnxruntime", "gradio")  # of extras that the oldest set does without


class Parsed(Exception):
    pass


@pytest.mark.parametrize("name", ["README.md", "MODEL_CARD.md"])
def test_every_command_exists_and_takes_its_options(name, monkeypatch):
    parse = argparse.ArgumentParser.parse_known_args

    def parse_only(self, *args, **kwargs):
        _, unknown = parse(self, *args, **kwargs)
        assert unknown == []
        raise Parsed

    monkeypatch.setattr(argparse.ArgumentParser, "parse_known_args", parse_only)
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    num_scripts = 0
    for words in commands(name):
        if words[0] == "make":
            assert words[1] in targets
        scripts = [word for word in words if word.endswith(".py")]
        if not scripts:
            assert words[0] in ("make", "git", "cd", "pip"), words
            continue
        folder, stem = Path(scripts[0]).parent, Path(scripts[0]).stem
        assert (ROOT / scripts[0]).is_file(), words
        if arguments := words[words.index(scripts[0]) + 1 :]:
            monkeypatch.syspath_prepend(str(ROOT / folder))
            try:
                script = importlib.import_module(stem)
            except ModuleNotFoundError as error:
                assert error.name in OPTIONAL, words
                continue
            with pytest.raises(Parsed):
                script.main(arguments)
            num_scripts += 1
    assert num_scripts > 5


def test_each_known_trouble_names_a_test_that_there_is():
    named = re.findall(
        r"`(tests/[\w/]+\.py)(?:::(\w+))?`", (ROOT / "docs" / "known-troubles.md").read_text(encoding="utf-8")
    )
    assert len(named) > 10
    for file, test in named:
        assert f"def {test}" in (ROOT / file).read_text(encoding="utf-8"), (file, test)
