"""Text of any origin in Markdown, so that none of it is read as markup."""

import re


def code_span(text: str) -> str:
    """Writes any text as a code span on one line."""
    text = _on_one_line(text)
    fence = "`" * (1 + max(map(len, re.findall("`+", text)), default=0))
    return f"{fence} {text} {fence}" if "`" in text else f"`{text}`"


def code_cell(text: str) -> str:
    """A code span in a cell of a table, which a bare bar would end."""
    return code_span(text).replace("|", "\\|")


def plain(text: str) -> str:
    """Writes any text as one line in which Markdown finds no markup."""
    within_a_word = r"(?<=[^\W_])_(?=[^\W_])"  # where an underscore is no markup
    return re.sub(rf"(?!{within_a_word})([\\`*_~$\[\]<>|&#])", r"\\\1", _on_one_line(text))


def _on_one_line(text: str) -> str:
    return " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())
