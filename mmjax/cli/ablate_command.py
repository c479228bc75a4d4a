"""`mmjax ablate FILE`: runs a study."""

import argparse
import dataclasses
import inspect
import shlex
import sys
from pathlib import Path
from typing import Any

from mmjax.cli import options
from mmjax.cli.resume_hints import tell_how_to_resume
from mmjax.console import NO_BREAK, print_paragraph, print_table, print_text


def add_command(commands: Any) -> None:
    """Adds the command to those of `mmjax`."""
    told = "run a study: every arm with every seed; --dry-run shows what it would take"
    parser = commands.add_parser("ablate", help=told, allow_abbrev=False)
    parser.add_argument("target", metavar="FILE[:STUDY]")
    add = parser.add_argument
    setting = "set one path of the base experiment, as in mmjax run; repeatable"
    add("--set", action="append", default=[], metavar="PATH=VALUE", dest="settings", help=setting)
    seeds = "seeds of every arm, trained together as one program (default: the study's)"
    add("--seeds", nargs="+", type=options.natural, metavar="N", help=seeds)
    add("--workdir", type=Path, metavar="DIR", help="where results go (default: runs/NAME/TIME)")
    add("--resume", action="store_true", help="continue the study in --workdir, if there is one")
    options.add_allow_changes(parser)
    add("--dry-run", action="store_true", help="print arms, programs and estimated time; stop")
    lanes = "most trainings that run as one program (default: as many as the memory holds)"
    add("--lanes", type=options.positive, metavar="N", help=lanes)
    options.add_checkpoint_option(parser)
    options.add_shared_options(parser)


def action(asked: argparse.Namespace) -> None:
    """Runs the study that the command names.

    Raises:
      ConfigError: whatever is wrong, before anything runs.
      SystemExit: arms failed; the others have their results.
    """
    import jax

    from mmjax import provenance
    from mmjax.cli.experiment_commands import prepare_jax
    from mmjax.config import ConfigError
    from mmjax.runs import workdir as workdirs
    from mmjax.study import cost_estimate
    from mmjax.study import run_study as studies
    from mmjax.study import study_directory as directories
    from mmjax.study import study_plan as plans

    study, file = find(asked.target)
    if asked.seeds:
        study = dataclasses.replace(study, seeds=tuple(asked.seeds))
    if asked.resume and asked.workdir is None:
        raise ConfigError("--resume needs --workdir DIR, the study to continue.")
    module = sys.modules.get(study.base.func.__module__)
    prepare_jax(asked)
    plan = plans.make_plan(file.stem, study, asked.settings, module=module)
    directory = asked.workdir or workdirs.fresh(plan.name)
    directories.check(plan, directory, resume=asked.resume)
    devices = asked.devices and jax.devices()[: asked.devices]
    used, data = plans.check(plan, devices)
    if asked.dry_run:
        return cost_estimate.describe(plan, devices, asked.lanes)
    command = shlex.join(["mmjax", *sys.argv[1:]])
    code = provenance.digest_code(module)
    record = provenance.record(command, file, code=code, data=data, devices_used=used)
    directory.mkdir(parents=True, exist_ok=True)
    with workdirs.lock(directory):
        provenance.check_unchanged(directory, record, module, allow=asked.allow_changes)
        directories.start(plan, directory, file, record)
        print_text(f"Work directory: {directory}")
        with tell_how_to_resume(command, directory):
            failed = studies.run(
                plan,
                directory,
                devices=devices,
                max_replicas=asked.lanes,
                checkpoint_every=asked.checkpoint_every,
            )
        print_results(directory)
    print_text(f"\nResults: {directory}\nReport: {shlex.join(['mmjax', 'report', str(directory)])}")
    if failed:
        sys.exit(
            f"error: {len(failed)} of {len(plan.arms)} arms failed: {', '.join(failed)}. Each has "
            f"an error.txt in {directory / 'arms'}; --resume tries them again."
        )


def print_results(directory: Path) -> None:
    """Prints the test metrics of the arms, the best one first, and the arms that failed."""
    from mmjax.report import study_results as records
    from mmjax.report import tables

    record = records.read(directory)
    table = tables.results(record)
    if table.rows:
        heads = [NO_BREAK.join(name.rsplit(" ", 1)) for name in table.header]  # keeps the arrow
        rows = [["", *heads[table.texts :]]]
        for cells in table.rows:
            labels = [cell.text for cell in cells[: table.texts] if cell.text]
            values = [f"{c.text} {c.mark or NO_BREAK}" * bool(c.text) for c in cells[table.texts :]]
            rows.append([", ".join(labels), *values])
        print_table(rows, table.title)
        print_text()
        print_paragraph(table.note)
    for arm, error in record.errors.items():
        print_text(f"{arm} failed: {error}")


def find(target: str) -> tuple[Any, Path]:
    """The study that FILE[:NAME] holds, by default STUDY, and its file.

    Raises:
      ConfigError: there is none.
    """
    from mmjax.config import ConfigError, experiment_source
    from mmjax.study.study import Study

    place, _, name = target.partition(":")
    path = place.endswith(".py")
    module = (
        experiment_source.import_file(Path(place))
        if path
        else experiment_source.import_module(place)
    )
    study = getattr(module, name or "STUDY", None)
    if not isinstance(study, Study):
        known = [n for n, value in vars(module).items() if isinstance(value, Study)]
        there = f"; it has {', '.join(known)}" if known else ""
        raise ConfigError(
            f"{place} holds no study called {name or 'STUDY'}{there}. "
            "End it with STUDY = Study(base=experiment, axes={...})."
        )
    return study, Path(inspect.getfile(module))
