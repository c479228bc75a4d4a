"""Predicts the digit, its language and the speaking rate from handwriting, speech and text.

    mmjax run experiments/polyglot_digits.py

trains the model below on all three modalities, and then on each modality alone, on a data set that
needs no download.

Expected over seeds 0 to 4 on two cores (mean and 95% interval, test split): digit accuracy
0.997 ± 0.001, language accuracy 0.993 ± 0.002, R² of the rate 0.938 ± 0.001; no modality alone
exceeds 0.956 on the digit. One seed takes 1.5 to 2.5 minutes on 2 CPU cores.
"""

import optax

from mmjax import cli
from mmjax.balance import equal
from mmjax.config import auto_config, single_modality
from mmjax.data.builtin.polyglot_digits import polyglot_digits
from mmjax.encoders import ConvEncoder, RecurrentEncoder, TextEncoder, gru
from mmjax.experiment import Experiment
from mmjax.fusion import Concat
from mmjax.heads import Classification, Regression
from mmjax.model import Model
from mmjax.sharing import HardSharing

ARMS = single_modality


@auto_config
def experiment(epochs: int = 12) -> Experiment:
    """Builds one encoder per modality, a concatenation, dense 128, and one head per task."""
    return Experiment(
        data=polyglot_digits(),
        model=Model(
            encoders={
                "image": ConvEncoder(features=(32, 64)),
                "speech": RecurrentEncoder(cell=gru(), width=64, bidirectional=True),
                "text": TextEncoder(encoder=RecurrentEncoder(cell=gru(), width=64)),
            },
            fusion=Concat(),
            sharing=HardSharing(features=(128,), dropout=0.2),
            heads={
                "digit": Classification(10),
                "language": Classification(8),
                "rate": Regression(mean=220.0, scale=58.0),
            },
        ),
        balancer=equal(),
        optimizer=optax.chain(
            optax.clip_by_global_norm(1.0),
            # 144 steps per epoch: 9,216 examples in batches of 64.
            optax.adamw(optax.cosine_decay_schedule(3e-3, decay_steps=144 * epochs)),
        ),
        epochs=epochs,
        batch_size=64,
    )


if __name__ == "__main__":
    cli.main(experiment, arms=ARMS)
