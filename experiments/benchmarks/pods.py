"""Compiles training programs for 1 to 256 TPU chips or GPUs, without one, and estimates them.

    pip install -e '.[pods]'
    python experiments/benchmarks/pods.py --json pods.json --markdown pods.md
    python experiments/benchmarks/pods.py --cases "main job, equal" --slices v5e:2x4

It compiles the scanned program that `mmjax run` trains with, for the main job and for ViT-B beside
BERT-base with four tasks. Parameters exist as shapes only. Bytes per chip are those of XLA's memory
analysis; operations are counted on the traced step, and bytes of HBM and of collectives in the text
of the compiled program, with loops as often as they run. The time of a step follows from the
published limits of the chips. Nothing is measured on a TPU or a GPU: docs/scale.md explains the
table. The main job compiles in about 20 s per slice, the two towers in one to four minutes, with
1.5 GB.
"""

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any

# Before JAX starts: no chip and no cloud machine is looked for.
os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["TPU_SKIP_MDS_QUERY"] = "1"
os.environ["ALLOW_MULTIPLE_LIBTPU_LOAD"] = "1"  # without a chip there is nothing to lock


def main() -> None:
    """Compiles and prints the table; `--json FILE` keeps rows of earlier calls."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cases", nargs="+", metavar="NAME", help="default: every one")
    parser.add_argument("--slices", nargs="+", metavar="NAME", help="default: those of each case")
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--markdown", type=Path, metavar="FILE")
    options = parser.parse_args()
    from scale import cases, chips, programs, table

    names = options.cases or [case.name for case in cases.CASES]
    if unknown := sorted(set(names) - {case.name for case in cases.CASES}):
        sys.exit(f"--cases {unknown}: choose from {[case.name for case in cases.CASES]}.")
    stored = json.loads(options.json.read_text()) if options.json and options.json.exists() else []
    rows: dict[tuple[str, str], dict[str, Any]] = {(r["case"], r["slice"]): r for r in stored}
    for case in cases.CASES:
        for name in options.slices or case.slices:
            if case.name not in names:
                continue
            print(f"compiling {case.name} for {name}", file=sys.stderr, flush=True)
            compiled = programs.compile_for_slice(*case.make(), chips.parse_slice(name), case.seeds)
            rows[case.name, name] = {"case": case.name, "slice": name, **compiled}
            if options.json:  # after each row, so that an interrupted run leaves its rows
                options.json.write_text(json.dumps(list(rows.values()), indent=1) + "\n")
    order = [case.name for case in cases.CASES]
    text = table.format_rows(sorted(rows.values(), key=lambda row: order.index(row["case"])))
    print(text)
    if options.markdown:
        options.markdown.write_text(text)


if __name__ == "__main__":
    main()
