"""`DIR/results.parquet`: every number of a study, one per row.

    arm     name of the arm, as in study.json
    seed    the seed of the training
    split   "train", "validation", "test" or "cost"
    step    completed training steps; for the test split, those of the selected parameters
    metric  its name
    value   float64; NaN if the metric is undefined

followed, if the study has folds, by

    fold    the fold that is the test split

and by one column per axis of the study, which has the axis's name and holds the arm's labels.

The metrics are, by split:

    train       loss/TASK and weight/TASK; with diagnostics also conflicts, condition, cosine/A,B
                and gradient_norm/TASK
    validation  TASK/METRIC, over the steps
    test        TASK/METRIC, of the parameters with the best validation result
    cost        parameters, flops (per training step), step_seconds, peak_bytes, seconds
"""

from pathlib import Path

import pandas as pd

from mmjax import files

RESULTS_FILE = "results.parquet"
CHECKSUM_FILE = "results.parquet.sha256"
RESULT_COLUMNS = ("arm", "seed", "split", "step", "metric", "value")


def load(directory: Path) -> pd.DataFrame:
    """Reads the numbers of a study, one per row, in the columns above.

    Args:
      directory: the study's directory.

    Raises:
      DamagedFileError: the file is damaged.
      ValueError: the file does not exist, or it lacks a column.
    """
    directory = Path(directory)
    path = directory / RESULTS_FILE
    if not path.is_file():
        raise ValueError(f"{directory} has no {RESULTS_FILE}; run the study first (mmjax ablate).")
    with files.name_damaged_file(path):
        frame = _read_checked_frame(path, directory / CHECKSUM_FILE)
    missing = [name for name in RESULT_COLUMNS if name not in frame.columns]
    if missing:
        raise ValueError(
            f"{path} lacks the columns {missing}; it has {list(frame.columns)}. "
            "Run the study again to write it."
        )
    return frame


def _read_checked_frame(path: Path, stored: Path) -> pd.DataFrame:
    """Reads a Parquet file whose checksum may be stored.

    Raises:
      ValueError: the file is damaged.
    """
    if stored.is_file() and files.read_text(stored).split()[:1] != [files.compute_sha256(path)]:
        raise ValueError("its checksum does not match")
    try:
        return pd.read_parquet(path)
    except OSError as error:  # pyarrow raises OSError for bad bytes
        raise ValueError(str(error)) from error
