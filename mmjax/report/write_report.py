"""Writes a study's report: tables and figures as Markdown, LaTeX and one HTML page."""

import functools
from pathlib import Path
from typing import NamedTuple

from mmjax import files
from mmjax.printing.escapes import escape_latex, escape_markdown
from mmjax.printing.formatting import format_split_sizes
from mmjax.report import (
    data_frames,
    figures,
    html_page,
    number_format,
    render,
    setup_tables,
    study_files,
    table_cells,
    tables,
)
from mmjax.report import study_results as records
from mmjax.report.class_tables import make_class_tables
from mmjax.report.contribution_tables import make_contribution_tables
from mmjax.report.example_tables import make_example_tables
from mmjax.report.figure_list import FIGURES, FigureText
from mmjax.report.study_results import StudyRecord
from mmjax.report.tables import Table


class _ReportParts(NamedTuple):
    """Parts of a report in order: name, introduction, results, figures, and what was run."""

    name: str
    intro: str
    results: list[Table]
    figures: list[FigureText]
    setup: list[Table]


def write_report(directory: str | Path) -> None:
    """Writes report.md, report.tex, report.html, tables/ (LaTeX, CSV) and figures/ (PNG, PDF).

    Arms that failed or have not run yet are listed; the others are reported.

    Raises:
      ValueError: the directory does not hold a study, or the study has no test results.
    """
    directory = Path(directory).expanduser()
    record = study_files.read_study(directory)
    if not (record.frame.split == "test").any():
        raise ValueError(f"{directory} has no test results yet; wait until an arm is completed.")
    parts = _make_parts(record, directory)
    files.write_text(directory / "report.md", _format_markdown_report(parts))
    (directory / "tables").mkdir(exist_ok=True)
    for table in (*parts.results, *parts.setup):
        latex = render.render_latex(render.shorten_table(table))
        files.write_text(directory / "tables" / f"{table.name}.tex", latex)
        files.write_text(directory / "tables" / f"{table.name}.csv", render.render_csv(table))
    files.write_text(directory / "report.tex", _format_latex_report(parts))
    files.write_text(directory / "report.html", _format_html_report(directory, parts))


def _make_parts(record: StudyRecord, directory: Path) -> _ReportParts:
    """Makes the parts of the report, and draws its figures."""
    return _ReportParts(
        record.name,
        _write_introduction(record),
        tables.make_result_tables(record)
        + make_class_tables(record, directory)
        + make_example_tables(record, directory)
        + make_contribution_tables(record, directory),
        _draw_figures(record, directory / "figures"),
        setup_tables.make_setup_tables(record),
    )


def _draw_figures(record: StudyRecord, directory: Path) -> list[FigureText]:
    """Plots the figures that apply to the study and writes them to a directory."""
    directory.mkdir(exist_ok=True)
    written = []
    with figures.use_figure_style():
        for plot, drawing in FIGURES:
            figure = plot(record)
            if figure is not None:
                figures.save_figure(figure, directory / drawing.name)
                note = drawing.note.replace("the seeds", f"the {record.unit}s")
                note += _describe_selection(record, drawing)
                written.append(drawing._replace(note=note))
    return written


def _describe_selection(record: StudyRecord, drawing: FigureText) -> str:
    """Describes which arms a figure shows, unless it shows all of them."""
    count, most = len(record.arms), records.MAX_SHOWN_ARMS
    if count <= most or drawing.name.startswith("front"):
        return ""
    return f" Shown are the best {most} of {count:,} arms, and the baselines."


def _write_introduction(record: StudyRecord) -> str:
    """Describes what was studied, how much of it is done, and whether the arms differ at all."""
    missing = {*record.errors, *records.find_unfinished_arms(record)}
    done = len(set(record.arms) - missing)
    axes = "; ".join(map(functools.partial(_describe_axis, record), record.axes)) or "none"
    seeds = f"seed{'s' * (len(record.seeds) > 1)} {', '.join(map(str, record.seeds))}"
    seeds += f" on each of {record.folds} folds" if record.folds else ""
    text = _describe_run(record) + (
        f"{done} of {len(record.arms)} arms are done ({len(record.errors)} failed), with "
        f"{seeds}. Axes: {axes}. Primary metric: "
        f"{table_cells.format_metric_title(record, record.metric)}, on the test split, of the "
        f"parameters with the best validation result. Baseline: {record.baseline}."
    )
    ranked = data_frames.compute_rank_tests(record)
    if ranked is not None:
        arms, ranks = ranked
        p = number_format.format_p_value(ranks.p)
        text += (
            f" Friedman's test that the {len(arms)} arms are equal, over {ranks.blocks} "
            f"{record.unit}s: p "
            f"{p if p.startswith('<') else f'= {p}'}."
        )
    return text


def _describe_axis(record: StudyRecord, axis: str) -> str:
    """Lists the labels of an axis, or the first of very many."""
    labels = [arm.labels[axis] for arm in record.arms.values() if axis in arm.labels]
    texts = list(dict.fromkeys(labels))
    if len(texts) > records.MAX_SHOWN_ARMS:
        texts = [*texts[:3], f"and {len(texts) - 3} more"]
    return f"{axis}: {', '.join(texts)}"


def _describe_run(record: StudyRecord) -> str:
    """Describes when the study ran, its data and its epochs, as far as they are recorded."""
    parts = []
    if record.starts and record.starts[0].get("time"):
        parts.append(f"Started {str(record.starts[0]['time'])[:10]}.")
    if "examples" in record.base:
        sizes = format_split_sizes(record.base["examples"])
        parts.append(f"Data: {record.base['data']} ({sizes}).")
    if "epochs" in record.base:
        parts.append(f"{record.base['epochs']} epochs unless an arm says otherwise.")
    return " ".join([*parts, ""])


def _format_markdown_report(report: _ReportParts) -> str:
    """Formats the report in Markdown, with links to the figures beside it."""
    parts = [f"# {escape_markdown(report.name)}\n\n{escape_markdown(report.intro)}\n"]
    parts += map(_markdown_section, report.results)
    for d in report.figures:
        parts.append(f"## {d.title}\n\n![{d.title}](figures/{d.name}.png)\n\n{d.note}\n")
    return "\n".join([*parts, *map(_markdown_section, report.setup)])


def _format_latex_report(report: _ReportParts) -> str:
    """Formats a LaTeX document that inputs all tables and figures, which a paper can use too."""
    parts = [
        r"\documentclass{article}",
        r"\usepackage[T1]{fontenc}",
        r"\usepackage[margin=1in]{geometry}",
        r"\usepackage{booktabs,graphicx}",
        r"\setlength{\parindent}{0pt}",
        r"\begin{document}",
        rf"\section*{{{escape_latex(report.name)}}}",
        escape_latex(report.intro),
    ]
    for table in report.results:
        parts += _latex_section(table)
    for d in report.figures:
        parts += [
            rf"\subsection*{{{escape_latex(d.title)}}}",
            rf"\includegraphics{{figures/{d.name}.pdf}}",
            rf"\par\smallskip{{\small {escape_latex(d.note)}\par}}",
        ]
    for table in report.setup:
        parts += _latex_section(table)
    return "\n".join([*parts, r"\end{document}", ""])


def _format_html_report(directory: Path, report: _ReportParts) -> str:
    """Formats the report as one HTML page that embeds the figures."""
    parts = [html_page.format_paragraph(report.intro)]
    for table in report.results:
        parts += [html_page.format_heading(table.title), render.render_html(table)]
    parts += [html_page.format_heading("Figures"), '<div class="figures">']
    for d in report.figures:
        parts.append(
            html_page.embed_figure(directory / "figures" / f"{d.name}.png", d.title, d.note)
        )
    parts.append("</div>")
    for table in report.setup:
        parts += [html_page.format_heading(table.title), render.render_html(table)]
    return html_page.make_page(report.name, parts)


def _markdown_section(table: Table) -> str:
    table = render.shorten_table(table)
    return f"## {escape_markdown(table.title)}\n\n{render.render_markdown(table)}"


def _latex_section(table: Table) -> list[str]:
    table = render.shorten_table(table)
    shrink = r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}"
    return [
        rf"\subsection*{{{escape_latex(table.title)}}}",
        rf"{shrink}{{\input{{tables/{table.name}}}}}",
        rf"\par\smallskip{{\small {escape_latex(table.note)}\par}}",
    ]
