"""Studies methods for missing modalities on three modalities and tasks: training rate by test rate.

    mmjax ablate experiments/missing_methods.py --workdir runs/missing_methods
    mmjax report runs/missing_methods
    python experiments/missing_methods.py runs/missing_methods    # the grid of test rates

The methods of `docs/missing.md` in the model of `polyglot_digits.py`, for 2 epochs, trained and
selected on complete examples or with half of all modalities missing at random, and tested with half
missing; the last command tests the same models at four rates.

Expected: as in `missing_views.py`, late fusion with losses of its branches loses least on the
digit, which every modality tells; the speaking rate, which only speech tells, no method can save.

The study has not been run yet: its 20 arms pass the checks before training, and it is estimated to
take 25 minutes on one core. `missing_views.py` holds the measured grid of the same methods.
"""

import sys
from pathlib import Path

import polyglot_digits as base
from missing_views import print_grid

from mmjax.config import auto_config
from mmjax.experiment import Experiment
from mmjax.study import Study

TASKS = "('digit', 'language')"
METHODS = {
    "zeros": {},
    "dropout": {"modality_dropout": "0.3"},
    "bank": {"model.missing": "'bank'"},
    "late": {"model.fusion": "Late(width=64)", "model.auxiliary.branches": "BranchLosses()"},
    "TMC": {
        "model.fusion": "Late(width=64)",
        "model.heads.digit": "Evidential(10)",
        "model.heads.language": "Evidential(8)",
        "model.auxiliary.branches": "BranchLosses()",
        "model.auxiliary.kl": f"DirichletKL({TASKS}, annealing_steps=144)",
    },
    "QMF": {
        "model.fusion": "Late(width=64)",
        "model.heads.digit": "EnergyWeighted(10)",
        "model.heads.language": "EnergyWeighted(8)",
        "model.auxiliary.branches": "BranchLosses()",
        "model.auxiliary.ranking": f"ConfidenceRanking({TASKS})",
    },
    "ShaSpec": {
        "model.fusion": "ShaSpec(width=64)",
        "model.auxiliary.shared_specific": "ShaSpecLosses()",
    },
    "MultiModN": {"model.fusion": "MultiModN(width=64)"},
    "ActionMAE": {
        "model.fusion": "ActionMAE(width=64)",
        "model.auxiliary.reconstruction": "Sown('fusion', 'reconstruction')",
    },
    "prompts": {"model.fusion": "Prompted(width=64, layers=1)"},
}


def incomplete_digits(train: float, test: float) -> str:
    """Writes the call that makes the data set with these shares of missing modalities."""
    data = "polyglot_digits(missing_modalities=0.0, missing_labels=0.0)"
    for rate, splits in ((train, ("train", "validation")), (test, ("test",))):
        if rate:
            data = f"mmjax.data.missing:at_random({data}, modalities={rate}, splits={splits})"
    return data


@auto_config
def experiment() -> Experiment:
    """Returns the experiment of `polyglot_digits.py` with fewer epochs."""
    return base.experiment(epochs=2)


STUDY = Study(
    base=experiment,
    axes={
        "method": METHODS,
        "train": {
            "complete": {"data": incomplete_digits(train=0.0, test=0.5)},
            "half missing": {"data": incomplete_digits(train=0.5, test=0.5)},
        },
    },
    metric="digit/accuracy",
)

if __name__ == "__main__":
    complete = base.polyglot_digits(missing_modalities=0.0, missing_labels=0.0)
    print_grid(Path(sys.argv[1]), complete, "digit/accuracy")
