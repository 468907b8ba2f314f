"""Text of any origin in Markdown, so that none of it is read as markup."""

import re


def code_span(text: str) -> str:
    """Writes any text as a code span on one line."""
    text = " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())
    fence = "`" * (1 + max(map(len, re.findall("`+", text)), default=0))
    return f"{fence} {text} {fence}" if "`" in text else f"`{text}`"


def plain(text: str) -> str:
    """Writes any text as one line in which Markdown finds no markup."""
    return re.sub(r"([\\`*\[\]<>|&#])", r"\\\1", " ".join(text.split()))
