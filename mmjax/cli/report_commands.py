"""`mmjax report DIR`, `mmjax show RUN` and `mmjax compare RUN RUN ...`: what is read, not run."""

import argparse
import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmjax import files, provenance
from mmjax.console import align_columns, print_paragraph, print_table, print_text


def add_commands(commands: Any) -> None:
    """Adds the three commands to those of `mmjax`."""
    report_help = "write a study's tables and figures: Markdown, LaTeX, one HTML page"
    parser = commands.add_parser("report", help=report_help, allow_abbrev=False)
    parser.add_argument("directory", type=Path, metavar="STUDY_DIR")
    show_help = "print what a run was and what it gave"
    parser = commands.add_parser("show", help=show_help, allow_abbrev=False)
    parser.add_argument("directory", type=Path, metavar="RUN_DIR")
    compare_help = "print how runs differ in configuration and in their test metrics"
    parser = commands.add_parser("compare", help=compare_help, allow_abbrev=False)
    parser.add_argument("directories", type=Path, nargs="+", metavar="RUN_DIR")


def report(options: argparse.Namespace) -> None:
    """Writes a study's report."""
    check_installed("pandas", "pyarrow")
    check_links(options.directory)
    from mmjax.report.write_report import report as write

    write(options.directory)
    print_text(f"Report: {options.directory / 'report.html'}")


def show(options: argparse.Namespace) -> None:
    """Prints a run: its start, its configuration, and each arm's state, metrics and costs."""
    from mmjax.report import number_format
    from mmjax.runs import read, stored_settings

    found = read.find(options.directory)
    print_text(str(options.directory))
    for line in starts(options.directory):
        print_text(line)
    print("\nSettings (whatever is not listed has its default)")
    print_aligned([[path, value] for path, value in found[0].settings.items()])
    for run in found:
        print_text(f"\n{run.name}: {run.state}")
        if run is not found[0]:
            both = {found[0].name: found[0].settings, run.name: run.settings}
            print_aligned(stored_settings.differences(both))
        if run.tests:
            print_table(read.metrics(run), "Test split")
        if run.cost:
            costs = (f"{name} {number_format.short(value)}" for name, value in run.cost.items())
            print_paragraph(f"cost: {', '.join(costs)}")


def compare(options: argparse.Namespace) -> None:
    """Prints where runs differ: configuration, test metrics, paired tests against the first."""
    from mmjax.runs import read, stored_settings

    found = read.distinct(options.directories)
    differences = stored_settings.differences({run.name: run.settings for run in found})
    if len(differences) > 1:
        print_table(differences, "Settings that differ", words=len(differences[0]))
    else:
        print("The runs have the same settings.")
    for run in found:
        if run.state != "finished":
            print_text(f"{run.name} is {run.state}")
    print_table(read.side_by_side(found), "Test split: mean ± half the 95% interval over seeds")
    tested = read.tests(found)
    if tested:
        what = f"Difference to {found[0].name} on common seeds (paired t-test, Holm's p)"
        print_table(tested, what)
    else:
        print("No paired tests: they need two seeds that a run has in common with the first.")


def starts(directory: Path) -> list[str]:
    """When and by which command a run was started, and resumed."""
    try:
        return [f"{one['time']}  {one['command']}" for one in provenance.read(directory)]
    except files.DamagedFileError as error:
        return [f"(when it was started is not known: {error})"]


def print_aligned(rows: Sequence[Sequence[str]]) -> None:
    """Prints rows of text in columns."""
    for line in align_columns(rows):
        print_text(f"  {line}")


def check_links(directory: Path) -> None:
    """Refuses a study whose report would be written through links, to somewhere else.

    Raises:
      ConfigError: naming the link.
    """
    from mmjax.config import ConfigError

    written = [directory / name for name in ("report.md", "report.tex", "report.html")]
    for folder in (directory / "tables", directory / "figures"):
        written += [folder, *folder.glob("*")]
    for path in written:
        if path.is_symlink():
            raise ConfigError(f"{path} is a link, and a report is not written through links.")


def check_installed(*packages: str) -> None:
    """Refuses where packages of the report are missing.

    Raises:
      ConfigError: naming them, and the mend.
    """
    missing = [name for name in packages if importlib.util.find_spec(name) is None]
    if missing:
        from mmjax.config import ConfigError

        raise ConfigError(f"a report needs {' and '.join(missing)}: pip install 'mmjax[ablate]'.")
