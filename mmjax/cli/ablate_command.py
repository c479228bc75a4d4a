"""`mmjax ablate FILE`: runs a study."""

import argparse
import dataclasses
import inspect
import shlex
import sys
from pathlib import Path
from typing import Any

from mmjax.cli import options
from mmjax.cli.resume_hints import add_resume_hint
from mmjax.printing.console import print_paragraph, print_table, print_text
from mmjax.printing.table_layout import NO_BREAK_SPACE


def add_ablate_command(commands: Any) -> None:
    """Adds the command to those of `mmjax`."""
    summary = "run a study: every arm with every seed; --dry-run estimates its time"
    parser = commands.add_parser("ablate", help=summary, allow_abbrev=False)
    parser.add_argument("target", metavar="FILE[:STUDY]")
    add = parser.add_argument
    setting = "set one path of the base experiment, as in mmjax run; repeatable"
    add("--set", action="append", default=[], metavar="PATH=VALUE", dest="settings", help=setting)
    seeds = "seeds of every arm, trained together in one program (default: the study's)"
    add("--seeds", nargs="+", type=options.parse_natural_number, metavar="N", help=seeds)
    folds = "folds of the data set, each trained with every seed (default: the study's)"
    add("--folds", type=options.parse_natural_number, metavar="N", help=folds)
    add("--workdir", type=Path, metavar="DIR", help="where results go (default: runs/NAME/TIME)")
    add("--resume", action="store_true", help="continue the study in --workdir, if there is one")
    options.add_allow_changes_option(parser)
    add("--dry-run", action="store_true", help="print arms, programs and estimated time, and stop")
    replicas = "maximum number of trainings in one program (default: as many as fit in memory)"
    add("--lanes", type=options.parse_positive_number, metavar="N", help=replicas)
    options.add_checkpoint_option(parser)
    options.add_predictions_option(parser)
    options.add_device_and_cache_options(parser)


def ablate_study(arguments: argparse.Namespace) -> None:
    """Runs the study that the command names.

    Raises:
      ConfigError: invalid input, before anything runs.
      SystemExit: some arms failed; the others have their results.
    """
    import jax

    from mmjax import provenance
    from mmjax.cli.jax_setup import set_up_jax
    from mmjax.config import ConfigError
    from mmjax.runs import workdir as workdirs
    from mmjax.study import cost_estimate
    from mmjax.study import run_study as studies
    from mmjax.study import study_directory as directories
    from mmjax.study import study_plan as plans

    study, file = _find_study(arguments.target)
    if arguments.seeds:
        study = dataclasses.replace(study, seeds=tuple(arguments.seeds))
    if arguments.folds is not None:
        study = dataclasses.replace(study, folds=arguments.folds)
    if arguments.resume and arguments.workdir is None:
        raise ConfigError("--resume needs --workdir DIR, the study to continue.")
    module = sys.modules.get(study.base.func.__module__)
    set_up_jax(arguments)
    plan = plans.make_study_plan(file.stem, study, arguments.settings, module=module)
    directory = arguments.workdir or workdirs.choose_new_directory(plan.name)
    directories.check_study_directory(plan, directory, resume=arguments.resume)
    devices = arguments.devices and jax.devices()[: arguments.devices]
    device_counts, data, weights = plans.check_plan(plan, devices)
    if arguments.dry_run:
        return cost_estimate.print_cost_estimate(plan, devices, arguments.lanes)
    command = shlex.join(["mmjax", *sys.argv[1:]])
    code = provenance.digest_code(module)
    record = provenance.make_record(
        command, file, code=code, data=data, weights=weights, devices_used=device_counts
    )
    directory.mkdir(parents=True, exist_ok=True)
    with workdirs.lock_run_directory(directory):
        provenance.check_unchanged(directory, record, module, allow=arguments.allow_changes)
        directories.start_study(plan, directory, file, record)
        print_text(f"Work directory: {directory}")
        with add_resume_hint(command, directory):
            failed = studies.run_study(
                plan,
                directory,
                devices=devices,
                max_replicas=arguments.lanes,
                checkpoint_every=arguments.checkpoint_every,
                predictions=arguments.predictions,
            )
        print_arm_results(directory)
    print_text(f"\nResults: {directory}\nReport: {shlex.join(['mmjax', 'report', str(directory)])}")
    if failed:
        what = "folds of arms" if study.folds else "arms"
        sys.exit(
            f"error: {len(failed)} of {len(plan.arms)} {what} failed: {', '.join(failed)}. Each "
            f"has an error.txt in {directory / 'arms'}; --resume tries them again."
        )


def print_arm_results(directory: Path) -> None:
    """Prints the test metrics of the arms, the best first, and the arms that failed."""
    from mmjax.report import study_files, tables

    record = study_files.read_study(directory)
    table = tables.make_main_table(record)
    if table.rows:
        heads = [
            NO_BREAK_SPACE.join(name.rsplit(" ", 1)) for name in table.header
        ]  # keeps the arrow on the line
        rows = [["", *heads[table.texts :]]]
        for cells in table.rows:
            labels = [cell.text for cell in cells[: table.texts] if cell.text]
            values = [
                f"{c.text} {c.mark or NO_BREAK_SPACE}" * bool(c.text) for c in cells[table.texts :]
            ]
            rows.append([", ".join(labels), *values])
        print_table(rows, table.title)
        print_text()
        print_paragraph(table.note)
    for arm, error in record.errors.items():
        print_text(f"{arm} failed: {error}")


def _find_study(target: str) -> tuple[Any, Path]:
    """Finds the study that FILE[:NAME] defines, by default STUDY; returns it and its file.

    Raises:
      ConfigError: there is none.
    """
    from mmjax.config import ConfigError, experiment_source
    from mmjax.study.study import Study

    file_or_module, _, name = target.partition(":")
    if file_or_module.endswith(".py"):
        module = experiment_source.import_file(Path(file_or_module))
    else:
        module = experiment_source.import_module(file_or_module)
    study = getattr(module, name or "STUDY", None)
    if not isinstance(study, Study):
        known = [n for n, value in vars(module).items() if isinstance(value, Study)]
        choices = f"; it has {', '.join(known)}" if known else ""
        raise ConfigError(
            f"{file_or_module} holds no study called {name or 'STUDY'}{choices}. "
            "End it with STUDY = Study(base=experiment, axes={...})."
        )
    return study, Path(inspect.getfile(module))
