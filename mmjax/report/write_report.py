"""`report`: a study's tables and figures as Markdown, LaTeX and one HTML page."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from matplotlib.figure import Figure

from mmjax import files
from mmjax.escapes import escape_latex, escape_markdown
from mmjax.report import (
    data_frames,
    diagrams,
    figures,
    html_page,
    number_format,
    render,
    tables,
    training_curves,
)
from mmjax.report import study_results as records
from mmjax.report.study_results import Record
from mmjax.report.tables import Table


class Drawing(NamedTuple):
    """A figure of the report: its file's name, its title and its caption."""

    name: str
    title: str
    note: str


class Parts(NamedTuple):
    """What a report holds, in its order: name, introduction, results, figures, what was run."""

    name: str
    intro: str
    results: list[Table]
    drawn: list[Drawing]
    setup: list[Table]


Draw = Callable[[Record], Figure | None]

BAND = "Lines: means over the seeds; bands: 95% intervals, within the values that there can be."
DRAWN: tuple[tuple[Draw, Drawing], ...] = (
    (
        figures.scores,
        Drawing(
            "scores",
            "The primary metric of every arm",
            "Means and 95% intervals over the seeds. Full: the best, and all that it is not "
            "significantly better than. Diamond and dashed line: the baseline.",
        ),
    ),
    (
        diagrams.critical_difference,
        Drawing(
            "critical_difference",
            "Mean ranks on the primary metric",
            "The mean ranks of the first table. Bars join arms whose ranks do not differ "
            "significantly (Nemenyi, 5%).",
        ),
    ),
    (
        figures.delta_m,
        Drawing(
            "delta_m",
            "Gain over the single-task arms",
            "Δm: mean over the tasks of the relative gain; means and 95% intervals over the "
            "seeds. Full: the best, and all that it is not significantly better than.",
        ),
    ),
    (
        training_curves.curves,
        Drawing("curves", "Learning curves", f"The primary metric on the validation split. {BAND}"),
    ),
    (
        diagrams.front_of_tasks,
        Drawing(
            "front_of_tasks",
            "One task against another",
            "Test means and 95% intervals. The line is the Pareto front of the means.",
        ),
    ),
    (
        diagrams.front_of_cost,
        Drawing(
            "front_of_cost",
            "Quality against cost",
            "Test means and 95% intervals. The line is the Pareto front of the means.",
        ),
    ),
    (
        training_curves.weights,
        Drawing(
            "weights",
            "The tasks' weights over training",
            f"{BAND} Arms whose weights never change are left out.",
        ),
    ),
    (
        training_curves.conflicts,
        Drawing("conflicts", "Conflicts between the tasks' gradients over training", BAND),
    ),
)


def report(directory: Path) -> None:
    """Writes report.md, report.tex, report.html, tables/ (LaTeX) and figures/ (PNG, PDF).

    Arms that failed or have not run yet are named in it; the rest is reported.

    Raises:
      ValueError: the directory holds no study, or one without any test result.
    """
    directory = Path(directory)
    record = records.read(directory)
    if not (record.frame.split == "test").any():
        raise ValueError(f"{directory} has no test result yet; let an arm finish first.")
    parts = Parts(
        record.name,
        introduction(record),
        tables.tables(record),
        draw(record, directory / "figures"),
        tables.run_tables(record),
    )
    files.write_text(directory / "report.md", as_markdown(parts))
    (directory / "tables").mkdir(exist_ok=True)
    for table in (*parts.results, *parts.setup):
        files.write_text(directory / "tables" / f"{table.name}.tex", render.latex(table))
    files.write_text(directory / "report.tex", as_latex(parts))
    files.write_text(directory / "report.html", as_html(directory, parts))


def draw(record: Record, directory: Path) -> list[Drawing]:
    """Draws the figures that the study gives reason for."""
    directory.mkdir(exist_ok=True)
    drawn = []
    with figures.style():
        for function, drawing in DRAWN:
            made = function(record)
            if made is not None:
                figures.save(made, directory / drawing.name)
                drawn.append(drawing)
    return drawn


def introduction(record: Record) -> str:
    """What was studied, how much of it is there, and whether the arms differ at all."""
    done = [
        a for a in record.arms if a not in record.errors and a not in records.unfinished(record)
    ]
    labels = {
        axis: dict.fromkeys(arm.labels[axis] for arm in record.arms.values() if axis in arm.labels)
        for axis in record.axes
    }
    axes = "; ".join(f"{axis}: {', '.join(found)}" for axis, found in labels.items())
    seeds = f"seed{'s' * (len(record.seeds) > 1)} {', '.join(map(str, record.seeds))}"
    text = what_ran(record) + (
        f"{len(done)} of {len(record.arms)} arms are done ({len(record.errors)} failed), with "
        f"{seeds}. Axes: {axes or 'none'}. Primary metric: "
        f"{tables.title(record, record.metric)}, on the test split, of the parameters that were "
        f"best on the validation split. Baseline: {record.baseline}."
    )
    ranked = data_frames.primary_ranks(record)
    if ranked is not None:
        arms, found = ranked
        p = number_format.probability(found.p)
        text += (
            f" Friedman's test that the {len(arms)} arms are alike, over {found.blocks} seeds: p "
            f"{p if p.startswith('<') else f'= {p}'}."
        )
    return text


def what_ran(record: Record) -> str:
    """When the study ran, on which data and how long it trained, as far as that is known."""
    parts = []
    if record.starts and record.starts[0].get("time"):
        parts.append(f"Started {str(record.starts[0]['time'])[:10]}.")
    if "examples" in record.base:
        sizes = ", ".join(f"{n:,} {split}" for split, n in record.base["examples"].items())
        parts.append(f"Data: {record.base['data']} ({sizes}).")
    if "epochs" in record.base:
        parts.append(f"{record.base['epochs']} epochs unless an arm says otherwise.")
    return " ".join([*parts, ""])


def as_markdown(report: Parts) -> str:
    """The report in Markdown; its figures lie beside it."""
    parts = [f"# {escape_markdown(report.name)}\n\n{escape_markdown(report.intro)}\n"]
    parts += [_markdown_section(table) for table in report.results]
    parts += [
        f"## {d.title}\n\n![{d.title}](figures/{d.name}.png)\n\n{d.note}\n" for d in report.drawn
    ]
    return "\n".join([*parts, *map(_markdown_section, report.setup)])


def as_latex(report: Parts) -> str:
    """A document of all tables and figures; a paper takes the files that it inputs."""
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
    for d in report.drawn:
        parts += [
            rf"\subsection*{{{escape_latex(d.title)}}}",
            rf"\includegraphics{{figures/{d.name}.pdf}}",
            rf"\par\smallskip{{\small {escape_latex(d.note)}\par}}",
        ]
    for table in report.setup:
        parts += _latex_section(table)
    return "\n".join([*parts, r"\end{document}", ""])


def as_html(directory: Path, report: Parts) -> str:
    """The report as one page with everything in it."""
    parts = [html_page.paragraph(report.intro)]
    for table in report.results:
        parts += [html_page.heading(table.title), render.html(table)]
    places = {d.name: directory / "figures" / f"{d.name}.png" for d in report.drawn}
    made = [html_page.figure(places[d.name], d.title, d.note) for d in report.drawn]
    parts += [html_page.heading("Figures"), '<div class="figures">', *made, "</div>"]
    for table in report.setup:
        parts += [html_page.heading(table.title), render.html(table)]
    return html_page.page(report.name, parts)


def _markdown_section(table: Table) -> str:
    return f"## {escape_markdown(table.title)}\n\n{render.markdown(table)}"


def _latex_section(table: Table) -> list[str]:
    shrink = r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}"
    return [
        rf"\subsection*{{{escape_latex(table.title)}}}",
        rf"{shrink}{{\input{{tables/{table.name}}}}}",
        rf"\par\smallskip{{\small {escape_latex(table.note)}\par}}",
    ]
