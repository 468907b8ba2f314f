"""Any text in Markdown, without its being read as markup."""

import re


def code_span(text: str) -> str:
    """Any text as code in Markdown, so that none of it is markup."""
    text = " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())
    fence = "`" * (1 + max(map(len, re.findall("`+", text)), default=0))
    return f"{fence} {text} {fence}" if "`" in text else f"`{text}`"


def plain(text: str) -> str:
    """Any text as one line of Markdown without markup."""
    return re.sub(r"([\\`*\[\]<>|&#])", r"\\\1", " ".join(text.split()))
