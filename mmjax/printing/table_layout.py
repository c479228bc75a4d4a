"""Lays tables out as text of a given width.

No table is truncated: one that is too wide is transposed, split into blocks of columns, or written
as one list per row.
"""

from collections.abc import Sequence
from typing import NamedTuple

from mmjax.printing.escapes import escape_control_characters

Rows = Sequence[Sequence[str]]

_COLUMN_GAP = "  "
# Characters; a column of words gets at least this, or its longest text if that is shorter.
_MIN_WORD_COLUMN_WIDTH = 24
NO_BREAK_SPACE = "\u00a0"  # a space at which cells are not broken into lines


def align_columns(rows: Rows) -> list[str]:
    """Formats rows of text as lines whose columns are aligned to the left, without a header.

    Example:
      >>> align_columns([["seed", "int", "0"], ["batch_size", "int", "64"]])
      ['seed        int  0', 'batch_size  int  64']
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [_COLUMN_GAP.join(map(str.ljust, row, widths)).rstrip() for row in rows]


def format_table(rows: Rows, width: int, *, words: int = 1) -> str:
    """Formats a table in lines of at most `width` characters, without truncating any cell.

    Columns of words and headers break into lines at spaces; numbers do not. A table that is still
    too wide is transposed if that fits, or else split into blocks of columns that repeat the first
    one; the metrics of one task stay together if possible. Lines are longer only if a single name
    or value is wider than `width`.

    Args:
      rows: the header, and the rows; the first column names them.
      width: characters per line.
      words: number of columns, the first ones, that hold words; the others hold numbers.

    Example:
      >>> print(format_table([["", "accuracy"], ["image", "0.97"]], width=80))
             accuracy
      ───────────────
      image      0.97
    """
    cells = [list(map(escape_control_characters, row)) for row in rows]
    layouts = [_split_columns(cells, width, words)]
    # Only tables whose first column alone holds words can be transposed: columns of words break
    # lines.
    if words == 1 and len(layouts[0]) != 1:
        transposed = list(map(list, zip(*cells, strict=True)))
        layouts.append(_split_columns(transposed, width, 1))
    fitting = list(filter(None, layouts))
    if not fitting:
        return _format_records(cells, width)
    # A single block is best, then the layout with the fewest lines.
    best = min(fitting, key=lambda blocks: (len(blocks) > 1, sum(len(b.cells) for b in blocks)))
    lines = [_format_block(block, width) for block in best]
    return "\n\n".join(lines).replace(NO_BREAK_SPACE, " ")


class _Block(NamedTuple):
    """Part of a table: its cells, and how many of its columns, the first ones, hold words."""

    cells: list[list[str]]
    words: int


def _split_columns(cells: list[list[str]], width: int, words: int) -> list[_Block]:
    """Splits a table into blocks of columns that fit; [] if the names and one column do not.

    Columns whose headers differ in the last word only, such as the metrics of a task, are a group.
    """
    widths = _compute_min_widths(cells, words)
    available = width - widths[0]
    if any(len(_COLUMN_GAP) + w > available for w in widths[1:]):
        return []
    # Greedy: each part goes to the current block, or begins the next one. Column 0 is in every
    # block.
    blocks: list[list[int]] = [[]]
    for group in _group_columns(cells[0]):
        for part in [group] if _total_width(group, widths) <= available else [[i] for i in group]:
            if blocks[-1] and _total_width(blocks[-1] + part, widths) > available:
                blocks.append([])
            blocks[-1] += part
    return [_select_columns(cells, block, words) for block in blocks]


def _select_columns(cells: list[list[str]], columns: Sequence[int], words: int) -> _Block:
    """Returns the block of the first column and these; the table's first `words` hold words."""
    chosen = []
    for row in cells:
        chosen.append([row[0], *map(row.__getitem__, columns)])
    return _Block(chosen, 1 + sum(i < words for i in columns))


def _group_columns(header: Sequence[str]) -> list[list[int]]:
    """Groups the columns after the first one by the task that their headers begin with.

    The columns of a group stay in one block if they fit.
    """
    groups: list[list[int]] = []
    last = ""
    for i, title in enumerate(header[1:], 1):
        task = title.rpartition(" ")[0]
        if task and task == last:
            groups[-1].append(i)
        else:
            groups.append([i])
        last = task
    return groups


def _compute_min_widths(cells: list[list[str]], words: int) -> list[int]:
    """Returns the smallest width of each column; the first `words` columns hold words."""
    columns = zip(*cells, strict=True)
    return [_min_column_width(column, i < words) for i, column in enumerate(columns)]


def _total_width(columns: Sequence[int], widths: Sequence[int]) -> int:
    """Returns the characters that these columns take to the right of the first one."""
    return sum(len(_COLUMN_GAP) + widths[i] for i in columns)


def _min_column_width(column: Sequence[str], is_words: bool) -> int:
    """Returns the smallest width of a column, its header included."""
    header, *cells = column
    word = max((display_width(word) for word in header.split(" ")), default=0)
    if not is_words:
        return max([word, *map(display_width, cells)])
    longest_word = max([word, *(display_width(w) for cell in cells for w in cell.split(" "))])
    return max(longest_word, min(_MIN_WORD_COLUMN_WIDTH, max(map(display_width, column))))


def _format_block(block: _Block, width: int) -> str:
    """Formats cells that fit, with a rule below the header."""
    # Widths first, then the cells broken to them, line by line.
    cells, words = block
    columns = list(zip(*cells, strict=True))
    widths = _compute_min_widths(cells, words)
    spare = width - sum(widths) - len(_COLUMN_GAP) * (len(widths) - 1)
    for i in range(words):  # columns of words share the rest of the line
        wanted = max(map(display_width, columns[i])) - widths[i]
        widths[i] += (added := max(0, min(wanted, spare)))
        spare -= added
    header_widths = list(map(max, widths, map(display_width, cells[0])))
    if sum(header_widths) - sum(widths) <= spare:
        widths = header_widths  # no header has to be broken
    header, *rows = cells
    lines = _format_row(header, widths, words, align_bottom=True)
    lines.append("─" * (sum(widths) + len(_COLUMN_GAP) * (len(widths) - 1)))
    for row in rows:
        lines += _format_row(row, widths, words)
    return "\n".join(lines)


def _format_row(
    row: Sequence[str], widths: Sequence[int], words: int, *, align_bottom: bool = False
) -> list[str]:
    """Formats a row as lines, with its cells broken to the widths."""
    broken = list(map(break_lines, row, widths))
    height = max(map(len, broken))
    padded = []
    for part in broken:
        blank = [""] * (height - len(part))
        padded.append(blank + part if align_bottom else part + blank)
    return [_format_line(texts, widths, words) for texts in zip(*padded, strict=True)]


def _format_line(texts: Sequence[str], widths: Sequence[int], words: int) -> str:
    padded = []
    for i, (text, width) in enumerate(zip(texts, widths, strict=True)):
        space = " " * (width - display_width(text))
        padded.append(text + space if i < words else space + text)
    return _COLUMN_GAP.join(padded).rstrip()


def _format_records(cells: list[list[str]], width: int) -> str:
    """Formats one list per row: its name, and below it each header with its value."""
    header, *rows = cells
    indent = max(map(display_width, header[1:]), default=0)
    lines = []
    for name, *values in rows:
        lines.append(name)
        for title, value in zip(header[1:], values, strict=True):
            if not value:
                continue
            if len(_COLUMN_GAP) * 2 + indent + display_width(value) <= width:
                padding = " " * (indent - display_width(title))
                lines.append(f"{_COLUMN_GAP}{title}{padding}{_COLUMN_GAP}{value}")
            else:
                lines += [f"{_COLUMN_GAP}{title}", f"{_COLUMN_GAP}{_COLUMN_GAP}{value}"]
        lines.append("")
    return "\n".join(lines).rstrip("\n").replace(NO_BREAK_SPACE, " ")


def break_lines(text: str, width: int) -> list[str]:
    """Breaks text at spaces into lines of at most `width` characters; longer words stay whole."""
    lines = [""]
    for word in text.split(" "):
        joined = f"{lines[-1]} {word}" if lines[-1] else word
        if lines[-1] and display_width(joined) > width:
            lines.append(word)
        else:
            lines[-1] = joined
    return lines


def display_width(text: str) -> int:
    """Returns the number of terminal columns that a text takes; wide characters take two.

    Example:
      >>> display_width("Δm"), display_width("数")
      (2, 2)
    """
    if text.isascii():
        return len(text)
    from rich.cells import cell_len

    return cell_len(text)
