"""Opens hostile runs in every way under an audit hook, and prints what happened as JSON.

python open_runs.py ROOT
"""

import contextlib
import io
import json
import os
import sys
import traceback
from pathlib import Path
from typing import Any

from mmjax import cli

sys.path.insert(0, str(Path(__file__).parent))
import attacks

WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
FORBIDDEN = {
    "ctypes.dlopen",
    "os.exec",
    "os.fork",
    "os.forkpty",
    "os.link",
    "os.mkdir",
    "os.posix_spawn",
    "os.putenv",
    "os.remove",
    "os.rename",
    "os.rmdir",
    "os.symlink",
    "os.system",
    "os.truncate",
    "pickle.find_class",
    "shutil.copyfile",
    "shutil.move",
    "shutil.rmtree",
    "socket.bind",
    "socket.connect",
    "socket.getaddrinfo",
    "subprocess.Popen",
    "tempfile.mkdtemp",
    "tempfile.mkstemp",
    "urllib.Request",
}
watching = False
seen: list[str] = []


def audit(event: str, arguments: tuple[Any, ...]) -> None:
    """Notes events that opening a run must not cause."""
    if not watching:
        return
    if event == "open":
        path, mode, flags = arguments
        writes = any(c in mode for c in "wax+") if isinstance(mode, str) else flags & WRITES
        if writes and path != os.devnull:
            seen.append(f"open for writing: {path!r}")
    elif event == "exec" and str(ROOT) in getattr(arguments[0], "co_filename", ""):
        seen.append(f"exec of {arguments[0].co_filename}")
    elif event == "import" and arguments[0] in ("antigravity", "evil_module", "mmjaxevil"):
        seen.append(f"import of {arguments[0]}")
    elif event in FORBIDDEN:
        seen.append(f"{event}: {str(arguments)[:200]}")


def opened(argv: list[str]) -> dict[str, Any]:
    """Runs a command; returns its exit code, its error, and the forbidden events."""
    global watching
    seen.clear()
    out, error = io.StringIO(), io.StringIO()
    code: Any = 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(error):
        watching = True
        try:
            cli.script(argv)
        except SystemExit as ended:
            code = ended.code
        except BaseException:
            code = traceback.format_exc()
        finally:
            watching = False
    return {"argv": argv, "code": code, "error": error.getvalue(), "events": list(seen)}


def main() -> None:
    runs = attacks.write_attacks(ROOT)
    os.chdir(ROOT)
    sys.path.append(str(ROOT / "installed"))
    good = str(runs[0])
    quiet = ["--no-compilation-cache", "--devices", "1"]
    # What is imported late and written once is not the attacks' doing.
    opened(["run", "--from-run", good, "--summary", *quiet])
    import tensorflow_datasets.core.read_only_builder

    assert tensorflow_datasets
    sys.addaudithook(audit)
    results = []
    for run in map(str, runs):
        commands = [
            ["show", run],
            ["compare", good, run],
            ["run", "--from-run", run, "--summary", *quiet],
            ["run", "--from-run", run, "--help"],
            ["evaluate", run, *quiet],
            ["evaluate", run, *quiet, "--allow", "mmjax.runs.teacher"],
        ]
        if run != good:
            other = ["--workdir", str(ROOT / "out" / "new run")]
            commands.append(["run", "--from-run", run, "--set", "epochs=1", *other, *quiet])
        results += [opened(argv) for argv in commands]
    print(json.dumps({"results": results, "written": sorted(map(str, (ROOT / "out").iterdir()))}))


if __name__ == "__main__":
    ROOT = Path(sys.argv[1]).absolute()
    main()
