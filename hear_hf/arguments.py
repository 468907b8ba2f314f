"""Options of commands, read from dataclasses, as Transformers' own examples read theirs.

Every option may be written with underscores or hyphens, and every boolean one as `--flag` or `--flag True`.
"""

import sys
from argparse import ArgumentDefaultsHelpFormatter, RawDescriptionHelpFormatter
from typing import Any

from transformers import HfArgumentParser
from transformers.hf_argparser import HfArg


def option(help: str, **settings: Any) -> Any:
    """A field of a dataclass of options: Transformers' `HfArg`, in a type that fits any field."""
    return HfArg(help=help, **settings)


class _HelpFormatter(ArgumentDefaultsHelpFormatter, RawDescriptionHelpFormatter):
    """Shows a command's docstring as it is written, and each option's default."""


def command_parser(dataclasses: type | tuple[type, ...], description: str | None = None) -> HfArgumentParser:
    """
    Makes the parser of a command.

    Args:
        dataclasses (`type` or `tuple[type, ...]`): What the options are read into.
        description (`str`, *optional*): Heads the help: the command's docstring.
    """
    return HfArgumentParser(dataclasses, description=description, formatter_class=_HelpFormatter)


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
