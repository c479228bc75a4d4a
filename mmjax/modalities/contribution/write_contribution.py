"""Files of a measured contribution: JSON, Markdown tables and a figure."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mmjax import files
from mmjax.modalities.contribution.describe_contribution import describe_contribution
from mmjax.modalities.contribution.measure_run import Contribution
from mmjax.modalities.contribution.measures import Estimate, group_by_measure
from mmjax.printing.escapes import escape_control_characters, escape_markdown, format_markdown_table

CONTRIBUTION_FILE = "contribution.json"
_TITLES = {
    "subset": "from",
    "shapley": "Shapley value of",
    "interaction": "interaction of",
    "intershap": "InterSHAP",
    "utilization": "conditional utilization of",
    "permutation": "perceptual score of",
    "additive": "additive part (EMAP)",
    "additive gap": "additive gap (EMAP)",
    "probe": "linear probe of",
}
_NOTE = (
    "Mean ± 95% interval over the seeds (Student's t), and the 95% interval over the examples "
    "(bootstrap). More is better in all rows but those of the metric itself (from, additive part, "
    "probe), which have its direction."
)


def make_contribution_rows(contribution: Contribution) -> list[list[str]]:
    """Makes the rows of the table, the header first: a row per measure, a column per metric."""
    names = list(contribution.metrics)
    keys = dict.fromkeys(key for name in names for key in contribution.metrics[name])
    rows = [["", *names]]
    for key in keys:
        measure, of = key
        cells = [_format_estimate(contribution.metrics[name].get(key)) for name in names]
        rows.append([f"{_TITLES[measure]} {of}".strip(), *cells])
    return rows


def make_information_rows(contribution: Contribution) -> list[list[str]]:
    """Makes the rows of the information decomposition, in bits; [] if there is none."""
    if not contribution.information:
        return []
    first, second = contribution.modalities
    header = ["bits", "redundancy", f"unique {first}", f"unique {second}", "synergy", "total"]
    rows = [header]
    for task, parts in contribution.information.items():
        values = np.array([[*part[:4], part.total] for part in parts])
        rows.append([task, *(f"{value:.3f}" for value in values.mean(axis=0))])
    return rows


def _format_estimate(estimate: Estimate | None) -> str:
    if estimate is None:
        return ""
    digits = 3 if not abs(estimate.mean) >= 10 else 1
    seeds = "" if np.isnan(estimate.half) else f" ± {estimate.half:.{digits}f}"
    examples = f" [{estimate.low:.{digits}f}, {estimate.high:.{digits}f}]"
    return f"{estimate.mean:.{digits}f}{seeds}" + ("" if np.isnan(estimate.low) else examples)


def write_contribution(directory: Path, contribution: Contribution) -> None:
    """Writes contribution.json, contribution.md and contribution.png into a directory."""
    directory.mkdir(parents=True, exist_ok=True)
    files.write_json(directory / CONTRIBUTION_FILE, convert_to_json(contribution))
    files.write_text(directory / "contribution.md", format_contribution_page(contribution))
    draw_contribution(contribution, directory / "contribution.png")


def convert_to_json(contribution: Contribution) -> dict[str, Any]:
    """Converts a contribution to plain JSON values; what is undefined becomes null."""

    def convert(value: Any) -> Any:
        if isinstance(value, Estimate):
            return {k: convert(v) for k, v in value._asdict().items()}
        if isinstance(value, Mapping):
            return {k: convert(v) for k, v in value.items()}
        if isinstance(value, tuple | list):
            return [convert(v) for v in value]
        return None if isinstance(value, float) and not np.isfinite(value) else value

    data = contribution._asdict()
    data["metrics"] = {n: group_by_measure(e) for n, e in contribution.metrics.items()}
    data["information"] = {
        task: [part._asdict() for part in parts] for task, parts in contribution.information.items()
    }
    return convert(data | {"text": describe_contribution(contribution)})


def format_contribution_page(contribution: Contribution) -> str:
    """Formats the paragraphs and tables in Markdown."""
    seeds = ", ".join(map(str, contribution.seeds))
    texts = describe_contribution(contribution).split("\n\n")
    parts = [
        "# Contributions of the modalities\n",
        f"Split {escape_markdown(contribution.split)} ({contribution.examples:,} examples), "
        f"seeds {seeds}.\n",
        *(f"{escape_markdown(text)}\n" for text in texts),
        format_markdown_table(make_contribution_rows(contribution), escape=True),
        f"{_NOTE}\n",
    ]
    if rows := make_information_rows(contribution):
        parts += [
            "## Information of the predicted classes\n",
            format_markdown_table(rows, escape=True),
            "Partial information decomposition (Bertschinger et al. 2014) of the classes that the "
            "model predicts from each modality alone, about the label; means over the seeds.\n",
        ]
    return "\n".join(parts)


def draw_contribution(contribution: Contribution, path: Path) -> None:
    """Draws, per metric, the value of every subset and the Shapley values and interactions."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    settings: Any = {"font.size": 8, "text.parse_math": False, "savefig.dpi": 200}
    with mpl.rc_context(settings):
        count = len(contribution.metrics)
        figure = Figure(figsize=(6.6, 0.4 + 2.2 * count), layout="constrained")
        axes: Any = figure.subplots(count, 2, squeeze=False)
        for row, (name, estimates) in zip(axes, contribution.metrics.items(), strict=True):
            groups = group_by_measure(estimates)
            _draw_bars(row[0], groups["subset"])
            _draw_bars(row[1], groups["shapley"] | groups["interaction"])
            row[0].set_xlabel(escape_control_characters(name))
            row[1].set_xlabel("Shapley value, interaction")
        figure.savefig(path)


def _draw_bars(axis: Any, estimates: Mapping[str, Estimate]) -> None:
    """Draws means as bars, with the intervals over the examples, and dots for the seeds."""
    names = list(estimates)[::-1]
    for i, name in enumerate(names):
        estimate = estimates[name]
        axis.barh(i, estimate.mean, color="0.8", height=0.7)
        axis.plot([estimate.low, estimate.high], [i, i], color="black", linewidth=0.9)
        axis.plot(estimate.seeds, [i] * len(estimate.seeds), "o", color="black", markersize=1.8)
    axis.axvline(0, color="black", linewidth=0.6)
    axis.set_yticks(range(len(names)), [escape_control_characters(name) for name in names])
    axis.spines[["top", "right"]].set_visible(False)
