"""Studies methods for missing modalities on image, speech and text: training rate by test rate.

    mmjax ablate experiments/missing_methods.py --workdir runs/missing_methods
    mmjax report runs/missing_methods
    python experiments/missing_methods.py runs/missing_methods    # the grid of test rates

The methods of `docs/missing.md` on `polyglot_digits`, with small encoders (a perceptron for the
image, the mean frame of the speech, the mean letter of the text) for 4 epochs, trained and selected
on complete examples or with half of all modalities missing at random. The last command tests them
with all modalities and at three rates of missing ones.

Expected: as in `missing_views.py`, late fusion with losses of its branches loses least on the
digit, which every modality tells, and zeros most if training is complete.

Measured: all 22 arms, in 12 minutes of processor time; five seeds, mean and 95% interval of the
accuracy of the digit on the test split (1,024 examples):

    train          method      test 0.0        test 0.3        test 0.5        test 0.7
    complete       zeros       0.959 ± 0.006   0.815 ± 0.016   0.698 ± 0.016   0.594 ± 0.011
                   dropout     0.965 ± 0.006   0.872 ± 0.007   0.780 ± 0.013   0.704 ± 0.021
                   bank        0.959 ± 0.006   0.816 ± 0.016   0.698 ± 0.018   0.594 ± 0.011
                   late        0.975 ± 0.003   0.910 ± 0.008   0.846 ± 0.017   0.786 ± 0.015
                   QMF         0.977 ± 0.002   0.908 ± 0.009   0.842 ± 0.019   0.783 ± 0.016
                   TMC         0.935 ± 0.015   0.849 ± 0.015   0.765 ± 0.010   0.696 ± 0.010
                   ShaSpec     0.975 ± 0.006   0.835 ± 0.014   0.726 ± 0.021   0.622 ± 0.032
                   MultiModN   0.944 ± 0.004   0.783 ± 0.020   0.664 ± 0.023   0.556 ± 0.029
                   HEALNet     0.971 ± 0.006   0.808 ± 0.013   0.696 ± 0.013   0.593 ± 0.020
                   ActionMAE   0.938 ± 0.006   0.875 ± 0.017   0.803 ± 0.016   0.741 ± 0.014
                   prompts     0.974 ± 0.007   0.806 ± 0.018   0.670 ± 0.024   0.559 ± 0.031
    half missing   zeros       0.961 ± 0.004   0.874 ± 0.004   0.790 ± 0.005   0.722 ± 0.012
                   dropout     0.960 ± 0.003   0.875 ± 0.003   0.793 ± 0.010   0.726 ± 0.010
                   bank        0.961 ± 0.003   0.874 ± 0.003   0.791 ± 0.003   0.722 ± 0.013
                   late        0.975 ± 0.004   0.909 ± 0.008   0.842 ± 0.006   0.782 ± 0.007
                   QMF         0.972 ± 0.006   0.901 ± 0.006   0.832 ± 0.009   0.773 ± 0.011
                   TMC         0.937 ± 0.011   0.861 ± 0.010   0.787 ± 0.010   0.726 ± 0.010
                   ShaSpec     0.978 ± 0.003   0.911 ± 0.007   0.855 ± 0.006   0.798 ± 0.010
                   MultiModN   0.923 ± 0.009   0.834 ± 0.021   0.756 ± 0.018   0.690 ± 0.011
                   HEALNet     0.970 ± 0.005   0.906 ± 0.003   0.851 ± 0.008   0.801 ± 0.007
                   ActionMAE   0.911 ± 0.015   0.852 ± 0.020   0.792 ± 0.028   0.736 ± 0.029
                   prompts     0.976 ± 0.003   0.911 ± 0.007   0.859 ± 0.007   0.809 ± 0.006

Verdict: trained on complete examples, late fusion and QMF, whose branches also learn alone, lose
least, as expected; zeros are not the worst: MultiModN and prompts, which have not seen a missing
modality, lose more, and HEALNet, which skips it, as much. If training lacks half, prompts, HEALNet
and ShaSpec are ahead of late fusion at the rates 0.5 and 0.7. Dropout at a rate of 0.3 wins back
most of what zeros lose to training with half missing, and costs nothing on complete examples. The
bank, which replaces a missing modality by what it has learned for that, does as zeros do. Nothing
was tuned.
"""

import sys
from pathlib import Path

import optax
from missing_views import print_grid

from mmjax.config import auto_config
from mmjax.data.builtin.polyglot_digits import polyglot_digits
from mmjax.encoders import Features, MLPEncoder, TextEncoder
from mmjax.experiment import Experiment
from mmjax.fusion import Concat
from mmjax.heads import Classification
from mmjax.model import Model
from mmjax.sharing import HardSharing
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
    "HEALNet": {"model.fusion": "HEALNet(width=64)"},
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
    """Builds a perceptron for the image, the mean frame and the mean letter, and dense 64."""
    return Experiment(
        data=polyglot_digits(missing_modalities=0.0, missing_labels=0.0),
        model=Model(
            encoders={
                "image": MLPEncoder(features=(64,)),
                "speech": Features(),
                "text": TextEncoder(encoder=Features()),
            },
            fusion=Concat(),
            sharing=HardSharing(features=(64,)),
            heads={"digit": Classification(10), "language": Classification(8)},
        ),
        # 72 steps per epoch: 9,216 examples in batches of 128.
        optimizer=optax.adamw(optax.cosine_decay_schedule(5e-3, decay_steps=72 * 4)),
        epochs=4,
        batch_size=128,
        eval_every=2,
        monitor="digit/accuracy",
    )


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
    complete = polyglot_digits(missing_modalities=0.0, missing_labels=0.0)
    print_grid(Path(sys.argv[1]), complete, "digit/accuracy")
