"""Prints text, tables and progress bars; all stored text reaches the terminal through this module.

Control characters are made visible, and nothing is interpreted as markup.
"""

import shutil
import sys
from typing import Any

from mmjax.printing.escapes import escape_control_characters
from mmjax.printing.table_layout import Rows, break_lines, format_table

_FILE_WIDTH = 120  # characters per line if the output is not a terminal


def make_progress(*columns: Any, stderr: bool = False, disable: bool = False) -> Any:
    """Makes a progress display whose tasks show their description, a bar and the given columns.

    Columns are formats of text, such as "{task.completed}", or columns of rich. If `disable` is
    True, nothing is shown.
    """
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn

    console = Console(stderr=stderr)
    if not stderr and not console.is_terminal:
        # Rich would assume 80 columns for a file.
        console = Console(width=_FILE_WIDTH)
    parts: list[Any] = []
    for part in ("{task.description}", BarColumn(bar_width=20), *columns):
        parts.append(TextColumn(part, markup=False) if isinstance(part, str) else part)
    return Progress(*parts, refresh_per_second=4, console=console, disable=disable)


def print_text(text: str = "", *, file: Any = None) -> None:
    """Prints text of several lines with its control characters made visible.

    Characters that the terminal's encoding lacks are escaped too.
    """
    file = file or sys.stdout
    encoding = getattr(file, "encoding", None) or "utf-8"
    # Stored text may come from anybody, and control characters could move the cursor or hide lines.
    visible = escape_control_characters(text, keep="\n\t")
    print(visible.encode(encoding, "backslashreplace").decode(encoding), file=file, flush=True)


def print_paragraph(text: str) -> None:
    """Prints text and breaks its lines at spaces."""
    lines = []
    for line in text.split("\n"):
        lines += break_lines(line, _terminal_width())
    print_text("\n".join(lines))


def _terminal_width() -> int:
    """Returns the characters per line of the terminal, or of a file."""
    return shutil.get_terminal_size((_FILE_WIDTH, 24)).columns


def print_table(rows: Rows, title: str = "", *, words: int = 1) -> None:
    """Prints a table of text as `format_table` lays it out.

    Args:
      rows: the header, and the rows; the first column names them.
      title: the text above it.
      words: number of columns, the first ones, that hold words; the others hold numbers.
    """
    print_text()
    if title:
        print_paragraph(escape_control_characters(title) + "\n")
    print_text(format_table(rows, _terminal_width(), words=words))
