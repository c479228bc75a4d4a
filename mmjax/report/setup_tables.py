"""Tables of what was run: setup, settings and changes."""

from collections.abc import Mapping
from typing import Any

from mmjax.report.study_results import StudyRecord
from mmjax.report.table_cells import Cell
from mmjax.report.tables import Table


def make_setup_tables(record: StudyRecord) -> list[Table]:
    """Returns the tables of what was run, as far as it is recorded."""
    return [
        t
        for t in (
            make_setup_table(record),
            make_settings_table(record),
            _make_changes_table(record),
        )
        if t.rows
    ]


def make_setup_table(record: StudyRecord) -> Table:
    """Makes the table of data, training, versions, and time and command of each start."""
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
    if record.folds:
        rows.append(("folds", str(record.folds)))
    previous: dict[str, str] = {}
    for index, start in enumerate(record.starts):
        started = "resumed" if index else "started"
        rows.append((started, f"{start.get('time', '')}  {start.get('command', '')}"))
        facts = _describe_start(start)
        for name, value in facts.items():
            if value and value != previous.get(name):  # only what changed since the last start
                rows.append((name, value))
        previous = facts
    cells = [[Cell(text, text) for text in row] for row in rows]
    note = "These are the base experiment's; the arms differ from it as their labels say."
    is_known = bool(record.starts or record.settings or base)
    return Table("setup", "What was run", ["what", "value"], cells if is_known else [], 2, note)


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
    rows = [[Cell(path, path), Cell(value, value)] for path, value in record.settings.items()]
    note = "Settings that are not listed have their defaults."
    what = "Settings of the base experiment"
    return Table("settings", what, ["path", "value"], rows, 2, note)


def _make_changes_table(record: StudyRecord) -> Table:
    """Makes the table of what each arm changes in the base experiment."""
    rows = []
    for name, arm in record.arms.items():
        text = ", ".join(f"{path}={value}" for path, value in arm.changes.items())
        if text:
            rows.append([Cell(name, name), Cell(text, text)])
    return Table("changes", "What each arm changes", ["arm", "settings"], rows, 2)
