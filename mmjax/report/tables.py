"""The tables of a study's report, as cells of text to be rendered."""

import textwrap
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from mmjax.report import data_frames, number_format, statistics
from mmjax.report import study_results as records
from mmjax.report.study_results import Record

ARROWS = {"max": "↑", "min": "↓"}
MARKS = {"better": "⁺", "worse": "⁻", "baseline": "°"}
WIDEST = 5  # most columns of a grid whose cells have intervals


class Cell(NamedTuple):
    """A cell: its text, what it is sorted by, whether it is bold, and the mark behind it."""

    text: str = ""
    value: float | str = ""
    best: bool = False
    mark: str = ""


class Table(NamedTuple):
    """A table.

    Attributes:
      name: short, for files.
      title: what it shows.
      header: names of the columns.
      rows: the cells.
      texts: how many of the first columns hold words.
      note: how to read it.
      rule: the row before which a line is drawn; 0 for none.
      order: the column that the rows are sorted by, and "ascending" or "descending"; None for none.
    """

    name: str
    title: str
    header: list[str]
    rows: list[list[Cell]]
    texts: int
    note: str = ""
    rule: int = 0
    order: tuple[int, str] | None = None


Column = Mapping[str, Cell]


def tables(record: Record) -> list[Table]:
    """All tables of results that the study gives reason for."""
    found = [arms(record), grid(record), tests(record), gains(record), others(record), gaps(record)]
    return [table for table in found if table is not None and table.rows]


def run_tables(record: Record) -> list[Table]:
    """The tables of what was run, as far as it is known."""
    return [t for t in (setup(record), settings(record), changes(record)) if t.rows]


def arms(record: Record) -> Table:
    """One metric a task, Δm, the mean rank and the costs of every arm."""
    columns = {title(record, m): scores(record, m) for m in records.main_metrics(record)}
    note = how_to_read(record)
    try:
        found = data_frames.delta_m(record)
    except ValueError as error:
        found, note = None, f"{note} No Δm: {error}"
    if found is not None:
        columns["Δm % ↑"] = over_seeds(found)
        note += " Δm: mean relative gain over the tasks' single-task arms."
    ranked = data_frames.mean_ranks(record)
    if ranked is not None:
        columns["mean rank ↓"] = {str(arm): number(rank, 1) for arm, rank in ranked.items()}
        note += (
            f" Mean rank: on {title(record, record.metric)[:-2]}, the mean over the seeds that all "
            "arms have of an arm's rank within the seed (1 is best; ties share their mean)."
        )
    spent = costs(record)
    note += " Costs are those of one training." if spent else ""
    return by_arm(record, "arms", "Test split", columns | spent, note)


def results(record: Record) -> Table:
    """The primary metric and one metric per task of every arm that has results."""
    columns = {title(record, m): scores(record, m) for m in records.main_metrics(record)}
    note = how_to_read(record, bold=False)
    return by_arm(record, "results", "Test split", columns, note)


def grid(record: Record) -> Table | None:
    """The primary metric over the axes of a study that has exactly two."""
    if len(record.axes) != 2:
        return None
    places = {
        tuple(cell.text for cell in names(record, arm)): arm
        for arm in records.with_role(record, "arm")
    }
    first, second = (list(dict.fromkeys(place[i] for place in places)) for i in (0, 1))
    if min(len(first), len(second)) < 2:
        return None
    found = scores(record, record.metric)
    if len(second) > WIDEST:
        found = {a: c._replace(text=c.text.partition(" ±")[0]) for a, c in found.items()}
    cells = [[found.get(places.get((a, b), ""), Cell()) for b in second] for a in first]
    rows = [[Cell(a, a), *row] for a, row in zip(first, cells, strict=True)]
    rows_of, columns_of = axis_names(record)
    what = f"{title(record, record.metric)}: {rows_of} (rows) × {columns_of} (columns)"
    note = "Bold and marks as in the first table."
    return Table("grid", what, [rows_of, *second], rows, 1, note)


def tests(record: Record) -> Table | None:
    """The paired tests of the primary metric against the baseline, if any could be done."""
    found = data_frames.summary(record, record.metric).drop(index=record.baseline, errors="ignore")
    note = (
        "Difference: mean ± half the 95% interval over the common seeds. p: two-sided paired "
        "t-test; then with Holm's correction over the rows."
    )
    if found.p.isna().all():
        return None
    what = f"{title(record, record.metric)} against {record.baseline}"
    return by_arm(record, "tests", what, differences(found.dropna(subset="difference")), note)


def gains(record: Record) -> Table | None:
    """The paired tests of the primary metric against the best single modality."""
    found = data_frames.fusion_gains(record)
    if found is None or found[1].p.isna().all():
        return None
    strongest, frame = found
    note = (
        f"{strongest} is the single-modality arm with the best test mean. Difference and p as in "
        "the tests against the baseline."
    )
    what = f"{title(record, record.metric)}: gain over the best single modality"
    return by_arm(record, "fusion_gains", what, differences(frame), note)


def others(record: Record) -> Table:
    """The other test metrics."""
    shown = {*records.main_metrics(record)}
    names = [m for m in record.directions if m not in shown and m.rpartition("/")[2] != "loss"]
    found = {title(record, m): scores(record, m) for m in names}
    columns = {name: column for name, column in found.items() if column}
    note = "Intervals, bold and marks as in the first table."
    return by_arm(record, "metrics", "Other test metrics", columns, note)


def gaps(record: Record) -> Table:
    """What is missing: failed and unfinished arms, seeds, undefined metrics."""
    found = [(arm, "failed", textwrap.shorten(error, 160)) for arm, error in record.errors.items()]
    found += [(arm, "no results yet", "") for arm in records.unfinished(record)]
    for metric in records.main_metrics(record):
        for arm in records.undefined(record, metric):
            found.append((arm, "left out", f"{metric} is undefined (NaN) for some of its seeds"))
    test = record.frame[record.frame.split == "test"]
    for arm, seeds in test.groupby("arm").seed.unique().items():
        lost = [str(seed) for seed in record.seeds if seed not in seeds]
        if lost and arm not in record.errors:
            found.append((str(arm), "incomplete", f"no results of seeds {', '.join(lost)}"))
    rows = [[Cell(text, text) for text in row] for row in found]
    return Table("gaps", "Failed and missing", ["arm", "state", "why"], rows, 3)


def setup(record: Record) -> Table:
    """What was run: data, training, versions, and when and by which command."""
    base, rows = record.base, []
    if "examples" in base:
        sizes = ", ".join(f"{count:,} {split}" for split, count in base["examples"].items())
        rows.append(("data", f"{base['data']}: {sizes}"))
    if "epochs" in base:
        rows.append(("training", f"{base['epochs']} epochs in batches of {base['batch_size']}"))
    if optimizer := record.settings.get("optimizer"):
        prefix = "optimizer."
        given = {p: v for p, v in record.settings.items() if p.startswith(prefix)}
        arguments = ", ".join(f"{p.removeprefix(prefix)}={v}" for p, v in given.items())
        rows.append(("optimizer", optimizer.replace("...", arguments)))
    rows.append(("seeds", ", ".join(map(str, record.seeds))))
    for number, start in enumerate(record.starts):
        started = "resumed" if number else "started"
        rows.append((started, f"{start.get('time', '')}  {start.get('command', '')}"))
        facts = {what: shown for what, shown in describe_start(start).items() if shown}
        before = describe_start(record.starts[number - 1]) if number else {}
        rows += [(what, shown) for what, shown in facts.items() if shown != before.get(what)]
    cells = [[Cell(text, text) for text in row] for row in rows]
    note = "The base experiment's; the arms differ from it as their labels say."
    known = bool(record.starts or record.settings or base)
    return Table("setup", "What was run", ["what", "value"], cells if known else [], 2, note)


def describe_start(start: Mapping[str, Any]) -> dict[str, str]:
    """What a start's record says of the code and the machine."""
    git, versions = start.get("git") or {}, start.get("versions") or {}
    changed = ", with uncommitted changes" if git.get("dirty") else ""
    kinds = (start.get("devices") or {}).get("kinds") or {}
    return {
        "git revision": f"{git['revision']}{changed}" if git.get("revision") else "",
        "versions": ", ".join(f"{name} {version}" for name, version in versions.items() if version),
        "devices": ", ".join(f"{count} × {kind}" for kind, count in kinds.items()),
        "platform": str(start.get("platform") or ""),
    }


def settings(record: Record) -> Table:
    """What the base experiment's configuration sets."""
    rows = [[Cell(path, path), Cell(value, value)] for path, value in record.settings.items()]
    note = "Whatever is not listed has its default."
    what = "Settings of the base experiment"
    return Table("settings", what, ["path", "value"], rows, 2, note)


def changes(record: Record) -> Table:
    """What each arm changes in the base experiment."""
    found = {
        name: ", ".join(f"{path}={value}" for path, value in arm.changes.items())
        for name, arm in record.arms.items()
    }
    rows = [[Cell(name, name), Cell(text, text)] for name, text in found.items() if text]
    return Table("changes", "What each arm changes", ["arm", "settings"], rows, 2)


def by_arm(record: Record, name: str, what: str, columns: Mapping[str, Column], note: str) -> Table:
    """A table of columns {arm: cell}: the arms that any has, the study's baselines behind.

    The arm with the best mean of the primary metric comes first.
    """
    there = [a for a in best_first(record) if any(a in column for column in columns.values())]
    own = [arm for arm in there if record.arms[arm].role == "arm"]
    rest = [arm for arm in there if record.arms[arm].role != "arm"]
    rows = [
        names(record, arm) + [column.get(arm, Cell()) for column in columns.values()]
        for arm in own + rest
    ]
    first = axis_names(record) or ["arm"]
    rule = len(own) if own and rest else 0
    primary = title(record, record.metric)
    order = None
    if primary in columns:
        way = "descending" if records.larger_is_better(record, record.metric) else "ascending"
        order = len(first) + list(columns).index(primary), way
    return Table(name, what, [*first, *columns], rows, len(first), note, rule, order)


def best_first(record: Record) -> list[str]:
    """The arms by their means of the primary metric, the best first; those without one last."""
    means = records.values(record, record.metric).mean(axis=1)
    signed = -means if records.larger_is_better(record, record.metric) else means
    order = np.argsort(signed.to_numpy(), kind="stable")  # NaN comes last
    return [str(means.index[i]) for i in order]


def axis_names(record: Record) -> list[str]:
    """The axes as they are shown: the last parts of their names, if these differ."""
    last = [axis.rpartition(".")[2] for axis in record.axes]
    return last if len(set(last)) == len(last) else list(record.axes)


def names(record: Record, arm: str) -> list[Cell]:
    """An arm's labels, a cell an axis; a baseline of the study is called by what it has alone."""
    found = record.arms[arm]
    if found.role == "arm" and record.axes:
        texts = [found.labels.get(axis, "").removesuffix("()") for axis in record.axes]
    else:
        alone = f"only {found.role.removeprefix('single_')} {found.of}"
        texts = [arm if found.role == "arm" else alone, *[""] * (len(record.axes) - 1)]
    return [Cell(text, text) for text in texts]


def scores(record: Record, metric: str) -> dict[str, Cell]:
    """A metric's cells: mean and interval, the best in bold, marks against the baseline."""
    found = data_frames.summary(record, metric)
    places = number_format.typical(found["mean"].to_numpy(), found.half.to_numpy())
    marks = found.verdict.map(MARKS).fillna("")
    if record.baseline in marks.index:
        marks[record.baseline] = MARKS["baseline"]
    return {
        str(row.Index): Cell(
            number_format.interval(row.mean, row.half, places),
            row.mean,
            bool(row.best),
            marks[row.Index],
        )
        for row in found.itertuples()
    } | {arm: Cell("undefined") for arm in records.undefined(record, metric)}


def differences(found: pd.DataFrame) -> dict[str, Column]:
    """The columns of differences and their tests."""
    places = number_format.typical(found.difference.to_numpy(), found.difference_half.to_numpy())
    rows = list(found.itertuples())
    return {
        "difference": {
            str(r.Index): Cell(
                number_format.interval(r.difference, r.difference_half, places),
                r.difference,
                mark=MARKS.get(str(r.verdict), ""),
            )
            for r in rows
        },
        "seeds": {str(r.Index): number(float(r.common), 0) for r in rows},
        "p": {str(r.Index): probability(r.p) for r in rows},
        "p (Holm)": {str(r.Index): probability(r.holm) for r in rows},
    }


def over_seeds(values: pd.DataFrame) -> dict[str, Cell]:
    """Cells of means and intervals of values, arms × seeds."""
    means, halves = statistics.intervals(values.to_numpy())
    places = number_format.typical(means, halves)
    return {
        arm: Cell(number_format.interval(mean, half, places), mean)
        for arm, mean, half in zip(values.index, means, halves, strict=True)
    }


def costs(record: Record) -> dict[str, Column]:
    """The columns of costs: whole, or with three digits of a typical one."""
    found: dict[str, Column] = {}
    for name, column in data_frames.costs(record).items():
        known = column.dropna()
        whole = (known == known.round()).all()
        places = 0 if whole else number_format.decimals(known[known > 0].median(), float("nan"))
        found[f"{name} ↓"] = {str(arm): number(x, places) for arm, x in known.items()}
    return found


def number(value: float, places: int) -> Cell:
    """A cell of one number."""
    return Cell(number_format.fixed(value, places), value)


def probability(p: float) -> Cell:
    """A cell of a p; those without a test come last."""
    return Cell(number_format.probability(p), 2.0 if np.isnan(p) else p)


def title(record: Record, metric: str) -> str:
    """A metric's name with an arrow that points to the better."""
    return f"{metric.replace('/', ' ').replace('_', ' ')} {ARROWS[record.directions[metric]]}"


def how_to_read(record: Record, *, bold: bool = True) -> str:
    """The note below a table of scores, which may have no bold type."""
    if len(record.seeds) < 2:
        return "One seed: no intervals, no tests" + (", and nothing is in bold." if bold else ".")
    best = (
        "Bold: the best, and all that it is not significantly better than (one-sided paired "
        "t-tests). "
    )
    return (
        f"Mean ± half the 95% interval (Student's t) over {len(record.seeds)} seeds. "
        f"{best if bold else ''}{MARKS['better']} {MARKS['worse']}: significantly better, worse "
        f"than {MARKS['baseline']}, the baseline {record.baseline} (two-sided). "
        "All tests at 5% with Holm's correction over the column."
    )
