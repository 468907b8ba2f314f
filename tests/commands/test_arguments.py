"""How commands read their options: dataclasses of them against command lines, files and the help."""

import importlib
import json
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from hear_hf.arguments import command_parser, option, parse_arguments

# All but run_onnx.py, which is copied to devices and takes no options.
COMMANDS = sorted(
    path.stem
    for folder in ("examples", "conversion", "benchmarks")
    for path in (Path(__file__).parents[2] / folder).glob("*.py")
    if "def main(argv" in path.read_text(encoding="utf-8")
)
# What commands import that the tests' own extra does not bring.
EXTRAS = dict.fromkeys(("export_onnx", "score_onnx", "export_openvino", "runtimes"), "onnxruntime")
EXTRAS["export_executorch"] = "executorch"


@dataclass
class Settings:
    """What the tests read."""

    batch_size: int = option(default=8, help="Read so many clips at once, 100 % of them.")
    fold_column: str | None = option(default=None, help="Leave out one value of this column at a time.")
    use_cache: bool = option(default=False, help="Keep what was read.")
    is_shown: bool = option(default=True, help="Show what was read.")


def parse_with_files(*argv):
    """Settings and files of a command that takes files too."""
    parser = command_parser(Settings, "Reads files.")
    parser.add_argument("files", nargs="*", help="Files to read.")
    settings, others = parser.parse_args_into_dataclasses(list(argv))
    return settings, others.files


@pytest.mark.parametrize("name", ["--batch_size", "--batch-size"])
def test_an_option_takes_underscores_or_hyphens(name):
    assert parse_arguments(Settings, [name, "3"]) == (Settings(batch_size=3),)


@pytest.mark.parametrize("words", [["--use_cache"], ["--use-cache", "True"], ["--use_cache=true"]])
def test_a_boolean_option_may_stand_alone_or_with_its_value(words):
    assert parse_arguments(Settings, words) == (Settings(use_cache=True),)
    assert parse_arguments(Settings, ["--use_cache", "False"]) == (Settings(),)
    assert parse_arguments(Settings, ["--no_is_shown"]) == parse_arguments(Settings, ["--is_shown", "no"])


def test_a_boolean_option_does_not_take_the_file_behind_it_for_its_value():
    words = ["a.wav", "-", "b.wav"]
    expected = Settings(use_cache=True), words
    assert parse_with_files("--use_cache", *words) == parse_with_files(*words, "--use-cache") == expected
    assert parse_with_files("--use_cache", "yes", *words) == expected
    assert parse_with_files("--use_cache", "--batch-size", "2", *words) == (Settings(2, use_cache=True), words)


@pytest.mark.parametrize(
    "words, message",
    [
        (["--batch_sizes", "3"], "unknown arguments: --batch_sizes 3"),
        (["--batch_size", "x"], "invalid int value"),
    ],
)
def test_a_mistake_ends_the_command_with_a_message_and_where_to_find_the_options(capsys, words, message):
    with pytest.raises(SystemExit) as stop:
        parse_arguments(Settings, words)
    found = capsys.readouterr().err
    assert stop.value.code == 2 and message in found and found.endswith(" --help\n") and found.count("\n") == 2


@pytest.mark.parametrize("name, write", [("run.json", json.dumps), ("run.yaml", yaml.safe_dump)])
def test_options_may_come_from_a_file(tmp_path, name, write):
    (tmp_path / name).write_text(write({"batch_size": 3, "use_cache": True}))
    assert parse_arguments(Settings, [str(tmp_path / name)]) == (Settings(3, use_cache=True),)


def test_the_help_shows_the_docstring_as_written_and_each_default_that_there_is():
    text = command_parser(Settings, "Reads files:\n\n    read.py  a.wav").format_help()
    assert "Reads files:\n\n    read.py  a.wav\n" in text
    words = " ".join(text.split())
    assert "Read so many clips at once, 100 % of them. (default: 8)" in words
    assert "Leave out one value of this column at a time. " in words and "default: None" not in words


def skip_without_its_extra(command):
    package = EXTRAS.get(command)
    if package is not None:
        pytest.importorskip(package, reason="the command needs an extra of hear_hf")


@pytest.mark.parametrize("command", COMMANDS)
def test_the_help_of_a_command_shows_how_it_is_used(command, capsys):
    skip_without_its_extra(command)
    module = importlib.import_module(command)
    with pytest.raises(SystemExit) as stop:
        module.main(["--help"])
    output = capsys.readouterr()
    assert stop.value.code == 0 and module.__doc__.strip() in output.out and not output.err
    assert output.out.startswith("usage: ")


@pytest.mark.parametrize("command", COMMANDS)
def test_an_argument_of_5000_letters_is_refused_in_one_line(command, capsys):
    skip_without_its_extra(command)
    with pytest.raises(SystemExit) as stop:
        importlib.import_module(command).main(["a" * 5_000])
    error = capsys.readouterr().err
    assert stop.value.code == 2 and "at most 4096 letters, found 5000" in error and len(error) < 400


def test_an_error_neither_controls_nor_floods_the_terminal(capsys):
    with pytest.raises(SystemExit):
        command_parser(Settings).error("\x1b[2Jcleared\n" + "a" * 750_000)
    error = capsys.readouterr().err
    assert "\\x1b[2Jcleared\na" in error and "\x1b" not in error and len(error) < 5_000
