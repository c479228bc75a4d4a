"""Escapes text from outside (names, settings, commands, errors), with one function per format.

All text that is printed or written into a report passes through one of these functions, so that a
name can neither control the terminal nor become markup.
"""

import html
import re
import unicodedata
from collections.abc import Sequence

_JOINERS = "\u200c\u200d"  # invisible, but needed in words and emoji
_MARKDOWN_SYNTAX = re.compile(
    r"[\\`*\[\]|$~]"  # always markup
    r"|(?<![^\W_])_|_(?![^\W_])"  # not within a word, where it is literal
    r"|<(?=[A-Za-z/!?])|&(?=#?\w+;)"  # the start of a tag, and of an entity
)
_ENTITIES = {"<": "&lt;", "&": "&amp;"}
LATEX_REPLACEMENTS = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    # At the start of a row LaTeX reads these three as arguments of the row break.
    "[": "{[}",
    "]": "{]}",
    "*": "{*}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "`": r"\textasciigrave{}",
    "±": r"$\pm$",
    "−": "$-$",
    "×": r"$\times$",
    "↑": r"$\uparrow$",
    "↓": r"$\downarrow$",
    "Δ": r"$\Delta$",
    "°": r"$^{\circ}$",
    "⁺": "$^{+}$",
    "⁻": "$^{-}$",
    "<": "$<$",
    ">": "$>$",
    "|": r"\textbar{}",
}
_LATEX_TRANSLATION = str.maketrans(LATEX_REPLACEMENTS)


def escape_control_characters(text: str, keep: str = "") -> str:
    r"""Makes control characters visible, as Python writes them: `\x1b`, `\n`, `\u202e`.

    These are the characters that move the cursor, color or rename the terminal, change the writing
    direction, break lines, or cannot be encoded (lone surrogates).

    Args:
      text: any text.
      keep: characters that are not escaped, such as a line break.

    Example:
      >>> escape_control_characters("red: \x1b[31m")
      'red: \\x1b[31m'
    """
    if text.isprintable():
        return text
    return "".join(c if c in keep or _is_visible(c) else _escape_character(c) for c in text)


def _is_visible(character: str) -> bool:
    """Returns whether a character prints as itself or is a kind of space."""
    return (
        character.isprintable()
        or character in _JOINERS
        or unicodedata.category(character) in ("Zs", "Co")
    )


def _escape_character(character: str) -> str:
    """Writes a character as Python's strings do."""
    return character.encode("unicode_escape").decode()


def escape_markdown(text: str) -> str:
    r"""Escapes text for one line of GitHub's Markdown, inside or outside of a table.

    Example:
      >>> escape_markdown("a|b <script> low_rank _x_")
      'a\\|b &lt;script> low_rank \\_x\\_'
    """
    text = escape_control_characters(text.replace("\n", " "))
    return _MARKDOWN_SYNTAX.sub(lambda match: _ENTITIES.get(match[0], "\\" + match[0]), text)


def escape_html(text: str) -> str:
    """Escapes text for HTML, in elements and in quoted attributes.

    Example:
      >>> escape_html('<a href="x">')
      '&lt;a href=&quot;x&quot;&gt;'
    """
    return html.escape(escape_control_characters(text.replace("\n", " ")))


def escape_latex(text: str) -> str:
    r"""Escapes text for LaTeX, inside or outside of a table.

    Example:
      >>> escape_latex("5% ± 1")
      '5\\% $\\pm$ 1'
    """
    text = escape_control_characters(text.replace("\n", " "))
    return text.translate(_LATEX_TRANSLATION)


def format_markdown_table(
    rows: Sequence[Sequence[str]], words: int = 1, *, escape: bool = False
) -> str:
    r"""Formats rows of text, the header first, as a table of Markdown.

    Args:
      rows: the cells.
      words: number of columns, the first ones, that hold words (the others hold numbers and are
        aligned to the right).
      escape: whether the cells are plain text that is escaped first.

    Example:
      >>> print(format_markdown_table([["", "accuracy"], ["a|b", "0.9"]], escape=True), end="")
      |  | accuracy |
      | :-- | --: |
      | a\|b | 0.9 |
    """
    if escape:
        rows = [list(map(escape_markdown, row)) for row in rows]
    rule = [":--"] * words + ["--:"] * (len(rows[0]) - words)
    return "".join(f"| {' | '.join(row)} |\n" for row in (rows[0], rule, *rows[1:]))
