"""`mmjax ablate FILE`: runs a study."""

import argparse
import contextlib
import dataclasses
import inspect
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

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
    _add_launcher_options(parser)


def _add_launcher_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options of where programs train, which change no result."""
    add = parser.add_argument
    launcher = (
        "where programs train: one after the other in this process (default), or each in a process "
        "of its own that ends, so that memory does not grow and several train at the same time"
    )
    choices = ("in-process", "local", "ray", "slurm")
    add("--launcher", choices=choices, default="in-process", help=launcher)
    workers = "programs that train at the same time (default: local 1, ray: CPUs, slurm: its limit)"
    add("--workers", type=options.parse_positive_number, metavar="N", help=workers)
    address = "join this Ray cluster, such as auto (default: start one on this machine)"
    add("--ray-address", metavar="ADDRESS", help=address)
    needs = (
        "what a worker needs, in the words of ray.remote (num_gpus=1) or of submitit "
        "(slurm_partition=gpu); repeatable"
    )
    add("--worker", action="append", default=[], metavar="KEY=VALUE", dest="needs", help=needs)


def ablate_study(arguments: argparse.Namespace) -> None:
    """Runs the study that the command names.

    Raises:
      ConfigError: invalid input, before anything runs.
      SystemExit: some arms failed; the others have their results.
    """
    from mmjax.config import ConfigError
    from mmjax.runs import workdir as workdirs

    study, file = _find_study(arguments.target)
    if arguments.seeds:
        study = dataclasses.replace(study, seeds=tuple(arguments.seeds))
    if arguments.folds is not None:
        study = dataclasses.replace(study, folds=arguments.folds)
    if arguments.resume and arguments.workdir is None:
        raise ConfigError("--resume needs --workdir DIR, the study to continue.")
    directory = arguments.workdir or workdirs.choose_new_directory(file.stem)
    launcher = None if arguments.dry_run else _make_launcher(arguments, directory)
    with launcher or contextlib.nullcontext():
        _plan_and_run(arguments, study, file, directory, launcher)


def _plan_and_run(
    arguments: argparse.Namespace, study: Any, file: Path, directory: Path, launcher: Any
) -> None:
    """Plans a study, checks it, and trains it in a directory by a launcher, if there is one."""
    import jax

    from mmjax import provenance
    from mmjax.cli.jax_setup import set_up_jax
    from mmjax.config import ConfigError
    from mmjax.runs import workdir as workdirs
    from mmjax.study import cost_estimate
    from mmjax.study import run_study as studies
    from mmjax.study import study_directory as directories
    from mmjax.study import study_plan as plans
    from mmjax.train.hardware.devices import count_usable_cores

    if launcher is not None:
        # The workers train; on the CPU, this process leaves accelerators and their memory to them.
        jax.config.update("jax_platforms", "cpu")
        jax.config.update("jax_num_cpu_devices", arguments.devices or count_usable_cores())
    module = sys.modules.get(study.base.func.__module__)
    set_up_jax(arguments)
    if jax.process_count() > 1:
        raise ConfigError(
            f"a study runs in one process, but this is one of {jax.process_count()} that JAX has "
            "joined; start mmjax ablate once, and let --launcher local, ray or slurm start more."
        )
    plan = plans.make_study_plan(file.stem, study, arguments.settings, module=module)
    directories.check_study_directory(plan, directory, resume=arguments.resume)
    devices = arguments.devices and jax.devices()[: arguments.devices]
    device_counts, data, weights = plans.check_plan(plan, devices)
    if arguments.dry_run:
        return cost_estimate.print_cost_estimate(plan, devices, arguments.lanes)
    command = shlex.join(["mmjax", *sys.argv[1:]])
    record = provenance.make_record(
        command,
        git=provenance.read_git_state(file),
        code=provenance.digest_code(module),
        data=data,
        weights=weights,
        devices_used=device_counts,
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
                launcher=launcher,
                target=arguments.target,
            )
        print_arm_results(directory)
    print_text(f"\nResults: {directory}\nReport: {shlex.join(['mmjax', 'report', str(directory)])}")
    if failed:
        _exit_with_failed_arms(plan, directory, failed)


def _exit_with_failed_arms(plan: Any, directory: Path, failed: Sequence[str]) -> NoReturn:
    """Ends the command with an error that names the failed arms."""
    what = "folds of arms" if plan.study.folds else "arms"
    sys.exit(
        f"error: {len(failed)} of {len(plan.arms)} {what} failed: {', '.join(failed)}. Each "
        f"has an error.txt in {directory / 'arms'}; --resume tries them again."
    )


def _make_launcher(arguments: argparse.Namespace, directory: Path) -> Any:
    """Makes the launcher that the options name; None trains in this process."""
    from mmjax.study.launchers import make_launcher, parse_worker_option

    return make_launcher(
        arguments.launcher,
        workers=arguments.workers,
        ray_address=arguments.ray_address,
        options=dict(map(parse_worker_option, arguments.needs)),
        folder=str(directory.resolve() / "slurm"),
    )


def print_arm_results(directory: Path) -> None:
    """Prints the test metrics of the arms, the best first, and the arms that failed."""
    from mmjax.report import study_files, tables

    record = study_files.read_study(directory)
    table = tables.make_main_table(record)
    if table.rows:
        rows = [[""]]
        for name in table.header[table.texts :]:
            rows[0].append(NO_BREAK_SPACE.join(name.rsplit(" ", 1)))  # keeps the arrow on the line
        for cells in table.rows:
            labels = [cell.text for cell in cells[: table.texts] if cell.text]
            rows.append([", ".join(labels), *map(_format_score, cells[table.texts :])])
        print_table(rows, table.title)
        print_text()
        print_paragraph(table.note)
    for arm, error in record.errors.items():
        print_text(f"{arm} failed: {error}")


def _format_score(cell: Any) -> str:
    """Formats a cell with its mark, or a space as wide as one, so that the numbers are aligned."""
    return f"{cell.text} {cell.mark or NO_BREAK_SPACE}" if cell.text else ""


def _find_study(target: str) -> tuple[Any, Path]:
    """Finds the study that FILE[:NAME] defines, by default STUDY; returns it and its file.

    Raises:
      ConfigError: there is none.
    """
    from mmjax.config import ConfigError, experiment_source
    from mmjax.study.study import Study

    file_or_module, _, name = target.partition(":")
    module = experiment_source.import_target(target)
    study = getattr(module, name or "STUDY", None)
    if not isinstance(study, Study):
        known = experiment_source.list_members(module, Study)
        choices = f"; it has {', '.join(known)}" if known else ""
        raise ConfigError(
            f"{file_or_module} holds no study called {name or 'STUDY'}{choices}. "
            "End it with STUDY = Study(base=experiment, axes={...})."
        )
    return study, Path(inspect.getfile(module))
