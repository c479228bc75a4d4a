"""`mmjax report DIR`, `mmjax show RUN` and `mmjax compare RUN RUN ...`: they only read runs."""

import argparse
import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmjax import files, provenance
from mmjax.printing.console import print_paragraph, print_table, print_text
from mmjax.printing.table_layout import align_columns


def add_report_commands(commands: Any) -> None:
    """Adds the three commands to those of `mmjax`."""
    report_help = "write a study's tables and figures: Markdown, LaTeX, one HTML page"
    parser = commands.add_parser("report", help=report_help, allow_abbrev=False)
    parser.add_argument("directory", type=Path, metavar="STUDY_DIR")
    show_help = "print the settings and the results of a run"
    parser = commands.add_parser("show", help=show_help, allow_abbrev=False)
    parser.add_argument("directory", type=Path, metavar="RUN_DIR")
    compare_help = "print how runs differ in configuration and in their test metrics"
    parser = commands.add_parser("compare", help=compare_help, allow_abbrev=False)
    parser.add_argument("directories", type=Path, nargs="+", metavar="RUN_DIR")


def report_study(options: argparse.Namespace) -> None:
    """Writes a study's report."""
    _check_packages_installed("pandas", "pyarrow")
    _check_no_links(options.directory)
    from mmjax.report.write_report import write_report as write

    write(options.directory)
    print_text(f"Report: {options.directory / 'report.html'}")


def show_run(options: argparse.Namespace) -> None:
    """Prints a run: its start, its configuration, and each arm's state, metrics and costs."""
    from mmjax.report import number_format
    from mmjax.runs import read, stored_settings

    arms = read.read_runs(options.directory)
    print_text(str(options.directory))
    for line in _describe_starts(options.directory):
        print_text(line)
    print("\nSettings (whatever is not listed has its default)")
    _print_aligned_rows([[path, value] for path, value in arms[0].settings.items()])
    for run in arms:
        print_text(f"\n{run.name}: {run.state}")
        if run is not arms[0]:
            both = {arms[0].name: arms[0].settings, run.name: run.settings}
            _print_aligned_rows(stored_settings.tabulate_differences(both))
        if run.tests:
            print_table(read.make_metrics_table(run), "Test split")
        if run.cost:
            costs = (
                f"{name} {number_format.format_number(value)}" for name, value in run.cost.items()
            )
            print_paragraph(f"cost: {', '.join(costs)}")


def compare_runs(options: argparse.Namespace) -> None:
    """Prints how runs differ: in settings, in test metrics, and in paired tests."""
    from mmjax.runs import read, stored_settings

    runs = read.read_distinct_runs(options.directories)
    differences = stored_settings.tabulate_differences({run.name: run.settings for run in runs})
    if len(differences) > 1:
        print_table(differences, "Settings that differ", words=len(differences[0]))
    else:
        print("The runs have the same settings.")
    for run in runs:
        if run.state != "finished":
            print_text(f"{run.name} is {run.state}")
    print_table(
        read.make_comparison_table(runs), "Test split: mean ± half the 95% interval over seeds"
    )
    tested = read.make_difference_table(runs)
    if tested:
        title = f"Difference to {runs[0].name} on common seeds (paired t-test, Holm's p)"
        print_table(tested, title)
    else:
        print("No paired tests: they need two seeds that a run has in common with the first.")
    _print_example_comparison(runs)


def _print_example_comparison(runs: Sequence[Any]) -> None:
    """Prints how runs differ on single test examples, if their predictions are stored."""
    if not any(list(run.home.glob("predictions-seed*.parquet")) for run in runs):
        return
    _check_packages_installed("pyarrow")
    from mmjax.report.example_statistics import CONDITION_NOTE
    from mmjax.runs.prediction.compare_predictions import make_example_rows

    rows = make_example_rows(runs)
    if rows:
        title = f"Difference to {runs[0].name} on the same test examples, common seeds"
        print_table(rows, title)
        print_paragraph(
            "Metrics: 95% interval of a paired bootstrap over examples. McNemar: examples that "
            f"only this run, and only {runs[0].name}, gets right; exact test, Holm's p over the "
            f"runs. {CONDITION_NOTE}"
        )


def _describe_starts(directory: Path) -> list[str]:
    """Lists when and with which commands a run was started and resumed."""
    try:
        return [
            f"{start['time']}  {start['command']}" for start in provenance.read_records(directory)
        ]
    except files.DamagedFileError as error:
        return [f"(when it was started is not known: {error})"]


def _print_aligned_rows(rows: Sequence[Sequence[str]]) -> None:
    """Prints rows of text in columns."""
    for line in align_columns(rows):
        print_text(f"  {line}")


def _check_no_links(directory: Path) -> None:
    """Refuses a study whose report would be written through links to other folders.

    Raises:
      ConfigError: naming the link.
    """
    from mmjax.config import ConfigError

    written = [directory / name for name in ("report.md", "report.tex", "report.html")]
    for folder in (directory / "tables", directory / "figures"):
        written += [folder, *folder.glob("*")]
    for path in written:
        if path.is_symlink():
            raise ConfigError(
                f"{path} is a link, and reports are not written through links; remove it."
            )


def _check_packages_installed(*packages: str) -> None:
    """Checks that the packages of the report are installed.

    Raises:
      ConfigError: naming the missing ones and how to install them.
    """
    missing = [name for name in packages if importlib.util.find_spec(name) is None]
    if missing:
        from mmjax.config import ConfigError

        raise ConfigError(f"a report needs {' and '.join(missing)}: pip install 'mmjax[ablate]'.")
