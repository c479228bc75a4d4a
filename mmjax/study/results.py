"""`DIR/results.parquet`: every number of a study, one a row.

    arm     name of the arm, as in study.json
    seed    the seed of the training
    split   "train", "validation", "test" or "cost"
    step    training steps behind the number; of the test split, those of the best parameters
    metric  its name
    value   float64; NaN where a metric is undefined

and after these one column an axis of the study, named as the axis is, with the arm's label on it.

The metrics are, by split:

    train       loss/TASK and weight/TASK; with diagnostics conflicts, condition, cosine/A,B and
                gradient_norm/TASK
    validation  TASK/METRIC, over the steps
    test        TASK/METRIC, of the parameters that were best on the validation split
    cost        parameters, flops (a training step), step_seconds, peak_bytes, seconds
"""

from pathlib import Path

import pandas as pd

from mmjax import files

FILE = "results.parquet"
CHECKSUM = "results.parquet.sha256"
COLUMNS = ("arm", "seed", "split", "step", "metric", "value")


def load(directory: Path) -> pd.DataFrame:
    """The numbers of a study, a row each, in the columns above.

    Args:
      directory: the study's directory.

    Raises:
      DamagedFileError: the file is damaged.
      ValueError: there is no such file, or it is another kind of table.
    """
    directory = Path(directory)
    path = directory / FILE
    if not path.is_file():
        raise ValueError(f"{directory} has no {FILE}; run the study first (mmjax ablate).")
    stored = directory / CHECKSUM
    with files.naming_damage(path):
        if stored.is_file() and files.read_text(stored).split()[:1] != [files.checksum_file(path)]:
            raise ValueError("its checksum does not match")
        try:
            frame = pd.read_parquet(path)
        except OSError as error:  # which is what pyarrow raises at bad bytes
            raise ValueError(str(error)) from error
    missing = [name for name in COLUMNS if name not in frame.columns]
    if missing:
        raise ValueError(
            f"{path} lacks the columns {missing}; it has {list(frame.columns)}. "
            "Run the study again to write it."
        )
    return frame
