"""Renders tables as Markdown, LaTeX, HTML and CSV."""

import csv
import io
from collections.abc import Iterable

from mmjax.printing.escapes import (
    escape_control_characters,
    escape_html,
    escape_latex,
    escape_markdown,
    format_markdown_table,
)
from mmjax.report.study_results import MAX_SHOWN_ARMS
from mmjax.report.table_cells import Cell
from mmjax.report.tables import Table

_DIRECTION_WORDS = {"↑": "higher is better", "↓": "lower is better"}
_SUPERSCRIPTS = {"⁺": "+", "⁻": "−", "°": "°"}


def shorten_table(table: Table) -> Table:
    """Returns a table with its first rows, the baseline and those below its rule; for print.

    A table of few rows is returned as it is. The note says where all rows are.
    """
    limit = MAX_SHOWN_ARMS
    if len(table.rows) <= limit:
        return table
    end = table.rule or len(table.rows)
    middle = [row for row in table.rows[limit:end] if any(cell.mark == "°" for cell in row)]
    first = [*table.rows[: min(limit, end)], *middle]
    note = (
        f"The {'best' if table.order else 'first'} {min(limit, end)} of {end} rows; all of them "
        f"are in tables/{table.name}.csv and report.html. {table.note}"
    )
    rule = len(first) if table.rule else 0
    return table._replace(rows=[*first, *table.rows[end:]], note=note.strip(), rule=rule)


def render_markdown(table: Table) -> str:
    """Renders a table in GitHub's Markdown, followed by its note.

    Example:
      >>> table = Table("t", "Test", ["arm", "acc ↑"], [[Cell("sum"), Cell("0.9", 0.9, True)]], 1)
      >>> print(render_markdown(table), end="")
      | arm | acc ↑ |
      | :-- | --: |
      | sum | **0.9** |
    """
    rows = [[*map(escape_markdown, table.header)]]
    for row in table.rows:
        rows.append([*map(_markdown_cell, row)])
    note = f"\n{escape_markdown(table.note)}\n" if table.note else ""
    return format_markdown_table(rows, table.texts) + note


def render_latex(table: Table) -> str:
    """Renders a table as a LaTeX `tabular` with booktabs rules, to be input in a float."""
    columns = "l" * table.texts + "r" * (len(table.header) - table.texts)
    if table.texts == len(table.header):  # the last column holds text that breaks into lines
        columns = columns[:-1] + r"p{0.7\linewidth}"
    rows = [_latex_row(map(escape_latex, table.header))]
    rows += [r"\midrule"]
    for i, row in enumerate(table.rows):
        rows += [r"\midrule"] * (0 < table.rule == i)
        rows.append(_latex_row(map(_latex_cell, row)))
    body = "\n".join([rf"\begin{{tabular}}{{{columns}}}", r"\toprule", *rows, r"\bottomrule"])
    return f"{body}\n\\end{{tabular}}\n"


def render_csv(table: Table) -> str:
    """Renders the texts of a table's cells as CSV, the header first; control characters show.

    Example:
      >>> table = Table("t", "Test", ["arm", "acc ↑"], [[Cell("a, b"), Cell("0.9", 0.9, True)]], 1)
      >>> print(render_csv(table), end="")
      arm,acc ↑
      "a, b",0.9
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(map(escape_control_characters, table.header))
    for row in table.rows:
        writer.writerow([escape_control_characters(cell.text) for cell in row])
    return text.getvalue()


def render_html(table: Table) -> str:
    """Renders a table in HTML; each column header is a button that sorts by the column.

    A table of many rows is marked for the filters of `html_page`.
    """
    heads = "".join(_html_head(i, table) for i in range(len(table.header)))
    end = table.rule or len(table.rows)
    bodies = "".join(
        _html_body(rows, table) for rows in (table.rows[:end], table.rows[end:]) if rows
    )
    note = f"<p>{escape_html(table.note)}</p>\n" if table.note else ""
    title = escape_html(table.title)
    return (
        f'<div class="wide" tabindex="0" role="region" aria-label="{title}">'
        f'<table id="{table.name}"{_html_table_class(table)}{_html_filters(table)}>\n'
        f"<thead><tr>{heads}</tr></thead>\n{bodies}</table></div>\n"
        f"{note}"
    )


def _markdown_cell(cell: Cell) -> str:
    text = escape_markdown(cell.text)
    return (f"**{text}**" if cell.best else text) + (f" {cell.mark}" if cell.mark else "")


def _latex_row(cells: Iterable[str]) -> str:
    return f"{' & '.join(cells)} \\\\"


def _latex_cell(cell: Cell) -> str:
    """Formats a cell; its mark has no width, so that the numbers stay aligned."""
    text = escape_latex(cell.text)
    mark = rf"\rlap{{{escape_latex(cell.mark)}}}" if cell.mark else ""
    return (rf"\textbf{{{text}}}" if cell.best else text) + mark


def _html_head(column: int, table: Table) -> str:
    """Formats a column header; words replace ↑ and ↓, because arrows show the sort order there."""
    name, better = escape_html(table.header[column]), ""
    for arrow, words in _DIRECTION_WORDS.items():
        if name.endswith(f" {arrow}"):
            name, better = name.removesuffix(f" {arrow}"), f"<small>{words}</small>"
    order = table.order[1] if table.order and table.order[0] == column else ""
    sort = f' aria-sort="{order}"' if order else ""
    kind = _html_cell_class(column, table)
    return f'<th scope="col"{kind}{sort}><button type="button">{name}</button>{better}</th>'


def _html_table_class(table: Table) -> str:
    """Returns the class of tables that hold text only, whose cells break into lines."""
    return ' class="prose"' if table.texts == len(table.header) else ""


def _html_filters(table: Table) -> str:
    """Returns the number of columns to filter by, and of rows to show, if the table is long."""
    if len(table.rows) <= MAX_SHOWN_ARMS:
        return ""
    columns = 0 if table.texts == len(table.header) else table.texts
    return f' data-filters="{columns}" data-few="{MAX_SHOWN_ARMS}"'


def _html_body(rows: list[list[Cell]], table: Table) -> str:
    """Formats rows that are sorted among themselves."""
    lines = "".join(f"<tr>{''.join(_html_cells(row, table))}</tr>\n" for row in rows)
    return f"<tbody>\n{lines}</tbody>\n"


def _html_cells(row: list[Cell], table: Table) -> list[str]:
    cells = []
    for i, cell in enumerate(row):
        text = escape_html(cell.text)
        text = f"<strong>{text}</strong>" if cell.best else text
        mark = f"<sup>{_SUPERSCRIPTS[cell.mark]}</sup>" if cell.mark else ""
        value = escape_html(str(cell.value))
        cells.append(f'<td{_html_cell_class(i, table)} data-value="{value}">{text}{mark}</td>')
    return cells


def _html_cell_class(column: int, table: Table) -> str:
    return "" if column < table.texts else ' class="number"'
