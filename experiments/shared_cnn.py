"""Trains the textbook multi-task network: one shared CNN, two softmax heads, weighted losses.

    mmjax run experiments/shared_cnn.py

Each image shows two overlapping digits, real scans from scikit-learn; one head predicts the left
digit and one the right digit (see `mmjax/data/builtin/digit_pairs.py`).

Expected test accuracy (seed 0, one run): left 0.993, right 0.990; 10 s on 2 CPU cores.
"""

import optax

from mmjax import cli
from mmjax.balance import static
from mmjax.config import auto_config
from mmjax.data.builtin.digit_pairs import digit_pairs
from mmjax.encoders import ConvEncoder
from mmjax.experiment import Experiment
from mmjax.fusion import Concat
from mmjax.heads import Classification
from mmjax.model import Model
from mmjax.sharing import HardSharing


@auto_config
def experiment() -> Experiment:
    """Builds conv 32 and 64 with pooling, dense 128 and two heads of ten classes."""
    return Experiment(
        data=digit_pairs(),
        model=Model(
            encoders={"image": ConvEncoder(features=(32, 64))},
            fusion=Concat(),
            sharing=HardSharing(features=(128,)),
            heads={"left": Classification(10), "right": Classification(10)},
        ),
        balancer=static({"left": 0.5, "right": 0.5}),
        optimizer=optax.adam(1e-3),
        epochs=10,
        batch_size=32,
    )


if __name__ == "__main__":
    cli.main(experiment)
