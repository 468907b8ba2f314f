"""Options of commands, read from dataclasses, as Transformers' own examples read theirs.

Every option may be written with underscores or hyphens, and every boolean one as `--flag` or `--flag True`.
"""

import sys
from argparse import Action, ArgumentDefaultsHelpFormatter, ArgumentTypeError, RawDescriptionHelpFormatter
from typing import Any, NoReturn

from transformers import HfArgumentParser
from transformers.hf_argparser import HfArg, string_to_bool

MAX_ARGUMENT = 4_096  # letters of one argument: no path is longer
MAX_MESSAGE = 4_000  # letters of an error


def printable(message: str) -> str:
    """A message for the terminal: names from files of others can neither control it nor flood it."""
    shown = "".join(one if one.isprintable() or one == "\n" else repr(one)[1:-1] for one in message[:MAX_MESSAGE])
    return shown if len(message) <= MAX_MESSAGE else f"{shown}... ({len(message) - MAX_MESSAGE} more letters)"


def on_one_line(message: str) -> str:
    """A message or name for the terminal, as `printable`, of which line ends in names make no lines of their own."""
    return printable(message).replace("\n", "\\n")


def option(help: str, **settings: Any) -> Any:
    """
    Declares a field of a dataclass of options: Transformers' `HfArg`, in a type that fits any field.

    Args:
        help (`str`): What the option does, in any letters: argparse would read a bare percent sign as a format.
        **settings: The field's `default` or `default_factory`, and argparse's further arguments as `metadata`.
    """
    return HfArg(help=help.replace("%", "%%"), **settings)


class _HelpFormatter(ArgumentDefaultsHelpFormatter, RawDescriptionHelpFormatter):
    """Shows a command's docstring as it is written, and the default of each option that has one."""

    def _get_help_string(self, action: Action) -> str | None:
        return action.help if action.default is None else super()._get_help_string(action)


class CommandParser(HfArgumentParser):
    """Reads options into dataclasses, and the arguments added to it into a namespace that comes last."""

    def parse_known_args(self, args=None, namespace=None):
        """Reads `--flag clip.wav` as a boolean option and a file, not as an option whose value is the file."""
        words = list(sys.argv[1:] if args is None else args)
        longest = max(words, key=len, default="")
        if len(longest) > MAX_ARGUMENT:
            self.error(
                f"an argument must have at most {MAX_ARGUMENT} letters, found {len(longest)}: {longest[:50]!r}..."
            )
        for i, following in enumerate(words[1:]):
            if self._is_boolean(words[i]) and not _is_truth_value(following):
                words[i] += "=True"
        return super().parse_known_args(words, namespace)

    def parse_args_into_dataclasses(self, *args, **kwargs) -> tuple:
        """Exits with a message where an argument is unknown, as argparse does; Transformers raises."""
        settings = kwargs | {"return_remaining_strings": True}
        *parsed, unknown = super().parse_args_into_dataclasses(*args, **settings)
        if unknown:
            self.error(f"unknown arguments: {' '.join(unknown)}")
        return tuple(parsed)

    def error(self, message: str) -> NoReturn:
        """Exits with the message alone: the usage of a command of a hundred options would bury it."""
        self.exit(2, f"{self.prog}: error: {printable(message)}\nFor the options: {self.prog} --help\n")

    def _is_boolean(self, word: str) -> bool:
        action = self._option_string_actions.get(word)
        return action is not None and action.type is string_to_bool


def _is_truth_value(word: str) -> bool:
    try:
        string_to_bool(word)
    except ArgumentTypeError:
        return False
    return True


def command_parser(dataclasses: type | tuple[type, ...], description: str | None = None) -> CommandParser:
    """
    Makes the parser of a command.

    Args:
        dataclasses (`type` or `tuple[type, ...]`): What the options are read into.
        description (`str`, *optional*): Heads the help: the command's docstring.
    """
    types: Any = dataclasses  # Transformers calls them by a name of its own
    return CommandParser(types, description=description, formatter_class=_HelpFormatter)


def parse_arguments(
    dataclasses: type | tuple[type, ...], argv: list[str] | None = None, description: str | None = None
) -> tuple:
    """
    Reads options from the command line, or from the one JSON or YAML file that it names.

    Args:
        dataclasses (`type` or `tuple[type, ...]`): What the options are read into.
        argv (`list[str]`, *optional*): The words of the command line after the command; this process's by default.
        description (`str`, *optional*): Heads the help: the command's docstring.

    Returns:
        `tuple`: An instance of each dataclass.
    """
    parser = command_parser(dataclasses, description)
    argv = sys.argv[1:] if argv is None else argv
    if len(argv) == 1 and argv[0].endswith((".json", ".yaml", ".yml")):
        read = parser.parse_json_file if argv[0].endswith(".json") else parser.parse_yaml_file
        return read(argv[0])
    return parser.parse_args_into_dataclasses(argv)
