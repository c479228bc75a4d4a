"""Tables for the tests of kinds."""

import numpy as np
import pytest

from mmjax.data import Split, from_table

HALVES = Split((("train", 0.5), ("test", 0.5)), time="row")


@pytest.fixture
def load(tmp_path):
    """Writes cells as CSV; the first half of the rows is the training split."""

    def load(columns, inputs, targets=None, **options):
        count = len(next(iter(columns.values())))
        noise = np.random.default_rng(0).normal(size=count)
        columns = {"row": list(range(count)), "noise": noise.tolist()} | columns
        if targets is None:
            columns["y"], targets = ["ab"[i % 3 == 0] for i in range(count)], {"y": "y"}
        lines = [",".join(columns)]
        for row in zip(*columns.values(), strict=True):
            lines.append(",".join(f'"{str(c).replace(chr(34), chr(34) * 2)}"' for c in row))
        (tmp_path / "t.csv").write_text("\n".join(lines), encoding="utf-8")
        inputs = {"noise": "noise"} | inputs
        return from_table(tmp_path / "t.csv", inputs, targets, split=HALVES, **options)

    return load
