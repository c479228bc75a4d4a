"""Compares accuracy on redundancy, uniqueness and synergy with the best that is possible.

    mmjax run experiments/interactions.py --seeds 0 1 2 3 4

trains on a vector and a sequence whose labels are made from known bits (see
`mmjax/data/builtin/interactions.py`), together and on each of them alone. The `facts` of the data
set hold the exact Bayes-optimal accuracy for every subset of the modalities.

Expected: each binary label within 0.02 of the optimum in every arm. One seed takes 50 s on 2 CPU
cores, five seeds three minutes. Measured over seeds 0 to 4 (mean and 95% interval, test split),
beside the exact optimum:

| | all | exact | a | exact | b | exact |
| :-- | --: | --: | --: | --: | --: | --: |
| redundancy | 0.946 ± 0.001 | 0.950 | 0.947 ± 0.000 | 0.950 | 0.946 ± 0.000 | 0.950 |
| uniqueness_a | 0.926 ± 0.000 | 0.929 | 0.926 ± 0.000 | 0.929 | 0.503 ± 0.007 | 0.500 |
| uniqueness_b | 0.924 ± 0.000 | 0.929 | 0.501 ± 0.009 | 0.500 | 0.924 ± 0.000 | 0.929 |
| synergy_ab | 0.888 ± 0.000 | 0.888 | 0.490 ± 0.006 | 0.500 | 0.499 ± 0.008 | 0.500 |
| mixed | 0.720 ± 0.002 | 0.728 | 0.213 ± 0.006 | 0.221 | 0.218 ± 0.005 | 0.221 |

Without the hidden layer (`--set 'model.sharing=HardSharing(features=())'`) the model is a sum over
the modalities: synergy falls to 0.495 ± 0.007 (three seeds), redundancy and uniqueness stay the
same.
"""

import optax

from mmjax import cli
from mmjax.config import auto_config, single_modality
from mmjax.data.builtin.interactions import interactions
from mmjax.encoders import MLPEncoder, RecurrentEncoder, gru
from mmjax.experiment import Experiment
from mmjax.fusion import Concat
from mmjax.heads import Classification
from mmjax.model import Model
from mmjax.sharing import HardSharing

ARMS = single_modality


@auto_config
def experiment() -> Experiment:
    """Builds a perceptron beside a GRU, dense 64, and one head per label."""
    return Experiment(
        data=interactions(redundancy=0.8, uniqueness=0.7, synergy=0.6, noise=0.02),
        model=Model(
            encoders={
                "a": MLPEncoder(features=(32,)),
                "b": RecurrentEncoder(cell=gru(), width=32),
            },
            fusion=Concat(),
            sharing=HardSharing(features=(64,)),
            heads={
                "redundancy": Classification(2),
                "uniqueness_a": Classification(2),
                "uniqueness_b": Classification(2),
                "synergy_ab": Classification(2),
                "mixed": Classification(16),
            },
        ),
        # 128 steps per epoch: 16,384 examples in batches of 128.
        optimizer=optax.adam(optax.cosine_decay_schedule(3e-3, decay_steps=128 * 10)),
        epochs=10,
        batch_size=128,
    )


if __name__ == "__main__":
    cli.main(experiment, arms=ARMS)
