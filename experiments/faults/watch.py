"""Watches the side effects of a process on fuzzed input, and counts how each case ended.

Python's audit hooks see every file that is opened for writing, every module that is imported, all
code that is executed, and every process and connection that is started. A hook cannot be removed
from a process, so it only counts inside `Watch.case`.
"""

import collections
import contextlib
import os
import re
import signal
import sys
import sysconfig
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

FORBIDDEN = (
    "subprocess.Popen",
    "os.system",
    "os.exec",
    "os.fork",
    "os.posix_spawn",
    "os.remove",
    "os.rename",
    "os.rmdir",
    "os.mkdir",
    "os.symlink",
    "os.link",
    "os.truncate",
    "shutil.rmtree",
    "socket.connect",
    "socket.bind",
    "socket.getaddrinfo",
    "urllib.Request",
    "ctypes.dlopen",
)
HANGS = 60  # seconds of computing after which a case is stopped; or ten times as many of waiting
VARYING = re.compile(r"\d+|'[^']*'|/\S+")  # parts that differ between failures of one kind
PRINTED = 10  # so many failures are printed when they occur


class HangError(BaseException):
    """A case that does not end; a BaseException, so that no handler takes it for a refusal."""


def _stop(*_: object) -> None:
    raise HangError


class Watch:
    """Counts outcomes and side effects of cases.

    Args:
      own: folders whose code may be executed, besides Python's own and installed packages.
      allowed: names of the packages that may be imported, besides those that are imported already
        and the standard library; modules inside imported packages are allowed.
    """

    def __init__(self, own: tuple[Path, ...], allowed: tuple[str, ...] = ()) -> None:
        paths = sysconfig.get_paths()
        self.homes = (
            *(str(folder.resolve()) for folder in own),
            *(str(Path(paths[key]).resolve()) for key in ("stdlib", "platstdlib", "purelib")),
        )
        self.allowed = {*allowed, *sys.stdlib_module_names}
        self.outcomes: collections.Counter[str] = collections.Counter()
        self.effects: collections.Counter[str] = collections.Counter()
        self.kinds: collections.Counter[str] = collections.Counter()
        self.failures: list[str] = []
        self.active = False
        self.case_name = ""
        sys.addaudithook(self._hook)

    def _hook(self, event: str, arguments: tuple) -> None:
        if not self.active:
            return
        effect = None
        if event == "open":
            path, mode, flags = arguments
            writes = isinstance(flags, int) and flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
            if writes or any(c in str(mode or "") for c in "wax+"):
                effect = f"file written: {path}"
        elif event == "import":
            package = str(arguments[0]).partition(".")[0]
            if package not in self.allowed and package not in sys.modules:
                effect = f"module imported: {arguments[0]}"
        elif event == "exec":
            file = getattr(arguments[0], "co_filename", "<code>")
            if not file.startswith("<") and not str(Path(file).resolve()).startswith(self.homes):
                effect = f"code executed: {file}"
        elif event in FORBIDDEN:
            effect = f"{event}: {arguments[:1]}"
        if effect:
            self.active = False  # this handler's own effects must not be counted
            self.effects[effect.partition(":")[0]] += 1
            self.fail(effect)
            self.active = True

    @contextlib.contextmanager
    def case(self, name: str, refusals: tuple[type[Exception], ...]) -> Iterator[None]:
        """Watches one case, which may pass or raise one of these types with one line of text."""
        self.case_name = name
        for signum in (signal.SIGPROF, signal.SIGALRM):
            signal.signal(signum, _stop)
        signal.setitimer(signal.ITIMER_PROF, HANGS)  # time of the processor: hosts may be busy
        signal.alarm(10 * HANGS)
        self.active = True
        try:
            yield
            outcome = "accepted"
        except refusals as error:
            outcome = "refused"
            if "\n" in str(error) or not str(error):
                outcome = "refused in several lines"
                self.fail(f"{outcome}: {error}")
        except Exception as error:
            outcome = "traceback"
            frame = traceback.extract_tb(error.__traceback__)[-1]
            location = f"{Path(frame.filename).name}:{frame.lineno}"
            self.fail(f"{type(error).__name__} at {location}: {str(error)[:300]}")
        except HangError:
            outcome = "hang"
            self.fail(f"hangs: it takes more than {HANGS} s of computing, or {10 * HANGS} s")
        finally:
            self.active = False
            signal.setitimer(signal.ITIMER_PROF, 0)
            signal.alarm(0)
        self.outcomes[outcome] += 1

    def fail(self, reason: str) -> None:
        """Records a failure, and prints it if it is one of the first."""
        self.kinds[VARYING.sub("...", reason)[:100]] += 1
        self.failures.append(f"{ascii(self.case_name)[:400]}\n    {ascii(reason)[:400]}")
        if len(self.failures) <= PRINTED:
            print(self.failures[-1], flush=True)

    def report(self, title: str) -> int:
        """Prints a table of counts, and returns the exit code: 1 if anything failed."""
        print(f"\n| {title} | count |\n| :-- | --: |")
        for name, count in sorted(self.outcomes.items()):
            print(f"| {name} | {count:,} |")
        effects = ("file written", "module imported", "code executed", *FORBIDDEN)
        for name in effects:
            if self.effects[name] or not name.startswith(("os.", "sh", "so", "ur", "su", "ct")):
                print(f"| {name} | {self.effects[name]:,} |")
        print(f"| failures | {len(self.failures):,} |")
        for kind, count in self.kinds.most_common():
            print(f"{count:6,}  {kind!a}")
        return 1 if self.failures else 0


def run_cases(cases: int, make: Callable[[int], None]) -> None:
    """Runs numbered cases, and prints a line per thousand."""
    start = time.monotonic()
    for number in range(cases):
        make(number)
        if number % 1000 == 999:
            print(f"{number + 1:,} cases in {time.monotonic() - start:.0f} s", flush=True)
