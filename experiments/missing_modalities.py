"""Does dropping modalities in training help where they are missing at test?

    mmjax ablate experiments/missing_modalities.py --workdir runs/missing_modalities
    mmjax report runs/missing_modalities

Claim 6 (Ma et al., CVPR 2022): models that saw complete examples only fail on incomplete ones, and
modality dropout buys robustness. The model of `polyglot_digits.py`, for 6 epochs, trained and
chosen on complete examples; each modality is dropped from a training example at one of five rates,
which train as one program. The test split is complete, or half of all modalities are missing at
random; no example lacks all three.

Expected: nothing is lost where all modalities are there, and without dropout much is lost where
they are not.

Not measured yet.
"""

import polyglot_digits as base

from mmjax.ablate import Study
from mmjax.config import auto_config
from mmjax.experiment import Experiment

COMPLETE = "polyglot_digits(missing_modalities=0.0, missing_labels=0.0)"
HALF = f"mmjax.data.missing:at_random({COMPLETE}, modalities=0.5, splits=('test',))"


@auto_config
def experiment() -> Experiment:
    """That of `polyglot_digits.py`, shorter."""
    return base.experiment(epochs=6)


STUDY = Study(
    base=experiment,
    axes={
        "modality_dropout": ["0.0", "0.1", "0.2", "0.3", "0.5"],
        "test": {"complete": {"data": COMPLETE}, "half missing": {"data": HALF}},
    },
    metric="digit/accuracy",
    baseline={"test": "half missing"},
    vmapped=("modality_dropout",),
)
