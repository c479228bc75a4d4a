"""Damages files of runs and checks that no command ends in a traceback or a silent wrong result.

    python experiments/faults/damage.py --cases 1000 --seed 0

makes a finished run, a half-finished run and a tiny study, damages one file of a copy (bit flips,
truncation, bytes that are not UTF-8, deep nesting, huge numbers, NaN, values of other types,
missing keys) and runs a command on it in this process. Expected: no case is bad. A case is good if
the command succeeds with the output of the undamaged run, or with another output that names the
file, or if it ends in an error of one line that names the file. `--commands` chooses some of show,
compare, summary, evaluate, report, resume. 1,000 cases take about ten minutes on one core.
"""

import argparse
import collections
import contextlib
import copy
import io
import json
import os
import random
import re
import shutil
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from mmjax import cli, files

EXPERIMENT = '''"""A run and a study of seconds."""

import optax

from mmjax.study import Study
from mmjax.config import auto_config, single_modality
from mmjax.data.builtin.interactions import interactions
from mmjax.encoders import MLPEncoder
from mmjax.experiment import Experiment
from mmjax.fusion import Concat
from mmjax.heads import Classification
from mmjax.model import Model
from mmjax.sharing import HardSharing

ARMS = single_modality


@auto_config
def experiment() -> Experiment:
    return Experiment(
        data=interactions(
            modalities=("vector", "vector"), redundancy=0.0, synergy=0.0, width=3,
            train=32, validation=16, test=16,
        ),
        model=Model(
            encoders={"a": MLPEncoder((3,)), "b": MLPEncoder((3,))},
            fusion=Concat(),
            sharing=HardSharing((3,), dropout=0.2),
            heads={"uniqueness_a": Classification(2)},
        ),
        optimizer=optax.adam(1e-2),
        epochs=3,
        batch_size=8,
        eval_batch_size=16,
        steps_per_dispatch=2,
    )


STUDY = Study(
    base=experiment,
    axes={"optimizer.learning_rate": ["0.01", "0.03"]},
    metric="uniqueness_a/accuracy",
    seeds=(0, 1),
)
'''
COMMANDS = ("show", "compare", "summary", "evaluate", "report", "resume")
WEIGHTS = {"show": 40, "compare": 30, "summary": 12, "evaluate": 10, "report": 4, "resume": 4}
BINARY = (".parquet",)


class Outcome(NamedTuple):
    """The exit code and the output of a command, and its traceback if it ended in one."""

    code: int
    out: str
    err: str
    traceback: str = ""


class Case(NamedTuple):
    """A command on a damaged copy.

    Attributes:
      command: one of COMMANDS.
      home: the directory that was copied.
      file: path of the damaged file, relative to the run.
      kind: how the file is damaged.
      sealed: whether a checksum can reveal the damage.
    """

    command: str
    home: str
    file: str
    kind: str
    sealed: bool


def run_command(*argv: str) -> Outcome:
    """Runs an mmjax command in this process."""
    out, err, code = io.StringIO(), io.StringIO(), 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            cli.script(argv)
        except SystemExit as ended:
            code = ended.code if isinstance(ended.code, int) else 1
            if isinstance(ended.code, str):
                print(ended.code, file=err)
        except BaseException:
            return Outcome(1, out.getvalue(), err.getvalue(), traceback.format_exc())
    return Outcome(code, out.getvalue(), err.getvalue())


def prepare(root: Path) -> None:
    """Makes experiment.py, a finished run, a half-finished run and a study in a folder."""
    (root / "experiment.py").write_text(EXPERIMENT, encoding="utf-8")
    file = str(root / "experiment.py")
    finished = run_command("run", file, "--workdir", str(root / "finished"), "--seeds", "0", "1")
    study = run_command("ablate", file, "--workdir", str(root / "study"))
    if finished.code or study.code:
        raise RuntimeError(f"the runs to be damaged failed: {finished} {study}")
    half = root / "half"
    shutil.copytree(root / "finished", half)
    for path in (half / "b" / "result.json", *half.glob("*.png"), *half.glob("table.md")):
        path.unlink()
    steps = sorted(int(p.name) for p in (half / "b" / "checkpoints").iterdir())
    shutil.rmtree(half / "b" / "checkpoints" / str(steps[-1]))


def try_command(command: str, directory: Path, root: Path) -> Outcome:
    """Runs a command on a copy; a report that it writes counts as its output."""
    outcome = run_command(*make_command(command, directory, root))
    report = directory / "report.md"
    if command == "report" and not outcome.code and report.is_file():
        outcome = outcome._replace(out=outcome.out + report.read_text(encoding="utf-8"))
    return outcome


def make_command(command: str, directory: Path, root: Path) -> list[str]:
    """Returns the arguments of `mmjax` for a command on a copy."""
    return {
        "show": ["show", str(directory)],
        "compare": ["compare", str(directory), str(root / "finished" / "a")],
        "summary": ["run", "--from-run", str(directory), "--summary"],
        "evaluate": ["evaluate", str(directory)],
        "report": ["report", str(directory)],
        "resume": [
            *["run", str(root / "experiment.py"), "--workdir", str(directory)],
            *["--seeds", "0", "1", "--resume"],
        ],
    }[command]


def choose_directory(command: str, rng: random.Random) -> str:
    """Draws which of the prepared directories a command is tried on."""
    if command == "report":
        return "study"
    return "half" if command == "resume" or rng.random() < 0.3 else "finished"


def list_damageable_files(directory: Path) -> list[Path]:
    """Lists the files of a run that mmjax writes itself, without checkpoints and TensorBoard."""
    skipped = {"checkpoints", "tensorboard", "figures", "tables", "programs"}
    return sorted(
        path
        for path in directory.rglob("*")
        if path.is_file()
        and not skipped & set(path.relative_to(directory).parts)
        and not files.is_lock_file(path)
    )


def damage(path: Path, rng: random.Random) -> tuple[str, bool]:
    """Damages a file; returns the kind of damage, and whether a checksum can reveal it."""
    kinds: list[Callable[[bytes, random.Random], bytes]] = [flip, flip, truncate, truncate]
    kinds += [insert_bytes, overwrite]
    sealed = True
    content = path.read_bytes()
    if path.suffix == ".json" and rng.random() < 0.5:
        keep = rng.random() < 0.5
        damaged, kind = change_value(content, rng, keep_seal=keep)
        sealed = keep and path.name != "summary.json"
    else:
        function = rng.choice(kinds)
        damaged, kind = function(content, rng), function.__name__
    path.write_bytes(damaged)
    return kind, sealed


def flip(content: bytes, rng: random.Random) -> bytes:
    """Flips one to three bits."""
    damaged = bytearray(content)
    for _ in range(rng.randint(1, 3)):
        damaged[rng.randrange(len(damaged))] ^= 1 << rng.randrange(8)
    return bytes(damaged)


def truncate(content: bytes, rng: random.Random) -> bytes:
    """Cuts off the end."""
    return content[: rng.randrange(len(content))]


def insert_bytes(content: bytes, rng: random.Random) -> bytes:
    """Inserts bytes that are not UTF-8, zeros or line breaks."""
    offset = rng.randrange(len(content))
    inserted = rng.choice([b"\xff\xfe", b"\x00" * 512, b"\n", b"\xed\xa0\x80", b"}"])
    return content[:offset] + inserted + content[offset:]


def overwrite(content: bytes, rng: random.Random) -> bytes:
    """Overwrites a block with zeros, as a file system may after a crash."""
    offset = rng.randrange(len(content))
    length = min(rng.choice([1, 16, 4096]), len(content) - offset)
    return content[:offset] + b"\0" * length + content[offset + length :]


def change_value(content: bytes, rng: random.Random, *, keep_seal: bool) -> tuple[bytes, str]:
    """Changes, removes or nests one value of a JSON file."""
    data = json.loads(content)
    if not keep_seal:
        data = files.check_and_drop_checksums(data)
    places = list(iterate_json_values(data))
    parent, key = rng.choice(places)
    new: Any = rng.choice(["text", 1e999, -1, 10**400, float("nan"), [], {}, None, True, "remove"])
    kind = f"{key} = {str(new)[:10]}"
    if new == "remove":
        del parent[key]
    elif isinstance(parent[key], int | float) and rng.random() < 0.5:
        parent[key] = copy.deepcopy(parent[key]) + 1
        kind = f"{key} + 1"
    else:
        parent[key] = new
    text = json.dumps(data, indent=1)
    if rng.random() < 0.1:
        text, kind = "[" * 100_000 + text, "deep nesting"
    return text.encode(), kind


def iterate_json_values(data: Any) -> Any:
    """Yields (container, key) of everything inside a JSON value."""
    items = data.items() if isinstance(data, dict) else enumerate(data)
    for key, value in list(items):
        if key != files.CHECKSUM_KEY:
            yield data, key
        if isinstance(value, dict | list) and value:
            yield from iterate_json_values(value)


def judge(case: Case, outcome: Outcome, expected: Outcome) -> str:
    """Returns 'same', 'named', 'as killed' or 'old style' for a good case, else a word in capitals.

    'old style' is a clean end without a checksum that could reveal the damage, as in old runs.
    """
    output = outcome.out + outcome.err
    if outcome.traceback or "Traceback" in output:
        return "TRACEBACK"
    if Path(case.file).name in output:
        return "named"
    if outcome.code:
        return "UNNAMED" if case.sealed else "old style"
    if normalize_output(outcome, case.command) == normalize_output(expected, case.command):
        return "same"
    if case.home == "half" and case.file.endswith(".jsonl") and case.kind == "truncate":
        return "as killed"  # a kill leaves such a log too
    return "SILENT" if case.sealed else "old style"


def normalize_output(outcome: Outcome, command: str) -> str:
    """Returns the output without blanks, and of a resumed run without rates, times and memory."""
    text = outcome.out
    if command == "resume":
        text = re.sub(r"[\d.,]+ examples/s.*|\d+\.\d+ +[\d,]+ *$", "", text, flags=re.MULTILINE)
    return re.sub(r"\s+|─+|━+", " ", text)


def read_logs(directory: Path) -> dict[str, bytes]:
    """Returns the logs of a run, which a resumed run must reproduce bit for bit."""
    return {str(p.relative_to(directory)): p.read_bytes() for p in directory.glob("*/*.jsonl")}


def campaign(
    root: Path, cases: int, seed: int, commands: Sequence[str] = COMMANDS
) -> list[tuple[Case, str, Outcome]]:
    """Runs the cases in a folder that `prepare` filled.

    Returns:
      (case, verdict, outcome) of each.
    """
    rng, results, expected = random.Random(seed), [], {}
    for number in range(cases):
        command = rng.choices(commands, [WEIGHTS[name] for name in commands])[0]
        home = choose_directory(command, rng)
        copied = root / "copy"
        if (command, home) not in expected:
            shutil.copytree(root / home, copied)
            expected[command, home] = (try_command(command, copied, root), read_logs(copied))
            if command == "resume" and read_logs(copied) != read_logs(root / "finished"):
                raise RuntimeError("the resumed run differs from the uninterrupted one")
            shutil.rmtree(copied)
        shutil.copytree(root / home, copied)
        path = rng.choice(list_damageable_files(copied))
        kind, sealed = damage(path, rng)
        case = Case(command, home, str(path.relative_to(copied)), kind, sealed)
        outcome = try_command(command, copied, root)
        verdict = judge(case, outcome, expected[command, home][0])
        if command == "resume" and verdict == "same" and not outcome.code:
            whole = read_logs(copied) == expected[command, home][1]
            verdict = "same" if whole or path.suffix == ".jsonl" else "SILENT"
        results.append((case, verdict, outcome))
        shutil.rmtree(copied)
        if number % 100 == 99:
            print(f"{number + 1} cases", flush=True)
        if verdict.isupper():
            print(f"{number}: {verdict}: {case}\n{outcome}\n", flush=True)
    return results


def main() -> None:
    """Runs the campaign and prints the number of cases per command and verdict."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--commands", nargs="+", choices=COMMANDS, default=COMMANDS)
    asked = parser.parse_args()
    os.environ["COLUMNS"] = "120"
    with tempfile.TemporaryDirectory() as folder:
        prepare(Path(folder))
        begin = time.perf_counter()
        results = campaign(Path(folder), asked.cases, asked.seed, asked.commands)
    verdicts = collections.Counter((case.command, verdict) for case, verdict, _ in results)
    for (command, verdict), count in sorted(verdicts.items()):
        print(f"{command:10} {verdict:10} {count}")
    bad = sum(count for (_, verdict), count in verdicts.items() if verdict.isupper())
    print(f"{bad} of {len(results)} cases are bad ({time.perf_counter() - begin:.0f} s).")
    raise SystemExit(bool(bad))


if __name__ == "__main__":
    main()
