"""A table as Markdown, as LaTeX and as HTML."""

import html as escapes

from mmjax.ablate.tables import Cell, Table

LATEX = {
    "\\": r"\textbackslash{}",
    **{c: "\\" + c for c in "&%$#_{}"},
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
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
SUPERSCRIPT = {"⁺": "+", "⁻": "−", "°": "°"}


def markdown(table: Table) -> str:
    """The table in GitHub's Markdown, its note behind."""
    rule = [":--"] * table.texts + ["--:"] * (len(table.header) - table.texts)
    rows = [map(_escape_bars, table.header), rule, *(map(_mark_down, row) for row in table.rows)]
    lines = [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join(lines) + "\n" + (f"\n{table.note}\n" if table.note else "")


def latex(table: Table) -> str:
    """The table as a LaTeX `tabular` with booktabs' rules, for a float of the paper's own."""
    columns = "l" * table.texts + "r" * (len(table.header) - table.texts)
    rows = [_latex_row([escape_latex(name) for name in table.header])]
    rows += [r"\midrule"]
    for i, row in enumerate(table.rows):
        rows += [r"\midrule"] * (0 < table.rule == i)
        rows.append(_latex_row([_latex_cell(cell) for cell in row]))
    body = "\n".join([rf"\begin{{tabular}}{{{columns}}}", r"\toprule", *rows, r"\bottomrule"])
    return f"{body}\n\\end{{tabular}}\n"


def html(table: Table) -> str:
    """The table in HTML; each head of a column is a button that sorts by it."""
    heads = "".join(
        f'<th scope="col"{_class(i, table)}><button type="button">{escapes.escape(name)}'
        "</button></th>"
        for i, name in enumerate(table.header)
    )
    cut = table.rule or len(table.rows)
    bodies = "".join(
        _html_body(rows, table) for rows in (table.rows[:cut], table.rows[cut:]) if rows
    )
    note = f"<p>{escapes.escape(table.note)}</p>\n" if table.note else ""
    title = escapes.escape(table.title)
    return (
        f'<div class="wide" tabindex="0" role="region" aria-label="{title}">'
        f'<table id="{table.name}">\n<thead><tr>{heads}</tr></thead>\n{bodies}</table></div>\n'
        f"{note}"
    )


def escape_latex(text: str) -> str:
    """Text as LaTeX shows it."""
    return "".join(LATEX.get(c, c) for c in text)


def _mark_down(cell: Cell) -> str:
    text = _escape_bars(cell.text)
    return (f"**{text}**" if cell.best else text) + (f" {cell.mark}" if cell.mark else "")


def _escape_bars(text: str) -> str:
    return text.replace("|", r"\|").replace("\n", " ")


def _latex_row(cells: list[str]) -> str:
    return f"{' & '.join(cells)} \\\\"


def _latex_cell(cell: Cell) -> str:
    """The mark takes no room, so that the numbers stand below one another."""
    text = escape_latex(cell.text)
    mark = rf"\rlap{{{escape_latex(cell.mark)}}}" if cell.mark else ""
    return (rf"\textbf{{{text}}}" if cell.best else text) + mark


def _html_body(rows: list[list[Cell]], table: Table) -> str:
    """Rows that are sorted among themselves."""
    lines = "".join(f"<tr>{''.join(_html_cells(row, table))}</tr>\n" for row in rows)
    return f"<tbody>\n{lines}</tbody>\n"


def _html_cells(row: list[Cell], table: Table) -> list[str]:
    cells = []
    for i, cell in enumerate(row):
        text = escapes.escape(cell.text)
        text = f"<strong>{text}</strong>" if cell.best else text
        mark = f"<sup>{SUPERSCRIPT[cell.mark]}</sup>" if cell.mark else ""
        value = escapes.escape(str(cell.value))
        cells.append(f'<td{_class(i, table)} data-value="{value}">{text}{mark}</td>')
    return cells


def _class(column: int, table: Table) -> str:
    return "" if column < table.texts else ' class="number"'
