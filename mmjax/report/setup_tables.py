"""Tables of what was run: setup, settings and changes."""

from collections.abc import Mapping, Sequence
from typing import Any

from mmjax.printing.formatting import format_settings, format_split_sizes
from mmjax.report.study_results import StudyRecord
from mmjax.report.table_cells import make_text_cells
from mmjax.report.tables import Table


def make_setup_tables(record: StudyRecord) -> list[Table]:
    """Returns the tables of what was run, as far as it is recorded."""
    tables = []
    for make_table in (make_setup_table, make_settings_table, _make_changes_table):
        table = make_table(record)
        if table.rows:
            tables.append(table)
    return tables


def make_setup_table(record: StudyRecord) -> Table:
    """Makes the table of data, training, versions, and time and command of each start."""
    base, rows = record.base, []
    if "examples" in base:
        rows.append(("data", f"{base['data']}: {format_split_sizes(base['examples'])}"))
    if "epochs" in base:
        rows.append(("training", f"{base['epochs']} epochs in batches of {base['batch_size']}"))
    if optimizer := record.settings.get("optimizer"):
        prefix = "optimizer."
        given = {p: v for p, v in record.settings.items() if p.startswith(prefix)}
        rows.append(("optimizer", optimizer.replace("...", format_settings(given, prefix))))
    rows.append(("seeds", ", ".join(map(str, record.seeds))))
    if record.folds:
        rows.append(("folds", str(record.folds)))
    rows += _describe_starts(record.starts)
    cells = list(map(make_text_cells, rows))
    note = "These are the base experiment's; the arms differ from it as their labels say."
    is_known = bool(record.starts or record.settings or base)
    return Table("setup", "What was run", ["what", "value"], cells if is_known else [], 2, note)


def _describe_starts(starts: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]]:
    """Describes every start, and what changed since the start before."""
    rows = []
    previous: dict[str, str] = {}
    for index, start in enumerate(starts):
        started = "resumed" if index else "started"
        rows.append((started, f"{start.get('time', '')}  {start.get('command', '')}"))
        facts = _describe_start(start)
        for name, value in facts.items():
            if value and value != previous.get(name):
                rows.append((name, value))
        previous = facts
    return rows


def _describe_start(start: Mapping[str, Any]) -> dict[str, str]:
    """Describes code, versions, devices and platform of a start; "" for what is not recorded."""
    git, versions = start.get("git") or {}, start.get("versions") or {}
    changed = ", with uncommitted changes" if git.get("dirty") else ""
    kinds = (start.get("devices") or {}).get("kinds") or {}
    return {
        "git revision": f"{git['revision']}{changed}" if git.get("revision") else "",
        "versions": ", ".join(f"{name} {version}" for name, version in versions.items() if version),
        "devices": ", ".join(f"{count} × {kind}" for kind, count in kinds.items()),
        "platform": str(start.get("platform") or ""),
    }


def make_settings_table(record: StudyRecord) -> Table:
    """Makes the table of what the configuration of the base experiment sets."""
    rows = list(map(make_text_cells, record.settings.items()))
    note = "Settings that are not listed have their defaults."
    what = "Settings of the base experiment"
    return Table("settings", what, ["path", "value"], rows, 2, note)


def _make_changes_table(record: StudyRecord) -> Table:
    """Makes the table of what each arm changes in the base experiment."""
    rows = []
    for name, arm in record.arms.items():
        if arm.changes:
            rows.append(make_text_cells((name, format_settings(arm.changes))))
    return Table("changes", "What each arm changes", ["arm", "settings"], rows, 2)
