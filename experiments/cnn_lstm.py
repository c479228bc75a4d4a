"""Trains the textbook multimodal network: a CNN on images beside two LSTM layers on sequences.

    mmjax run experiments/cnn_lstm.py

Both representations are concatenated, and one softmax predicts the digit. Images are real scans and
sequences are log-mel frames of speech (see `mmjax/data/builtin/polyglot_digits.py`); all examples
are complete.

Expected test accuracy (seed 0, one run): both 0.986, image alone 0.947, speech alone 0.916; 58 s on
2 CPU cores.
"""

import optax

from mmjax import cli
from mmjax.config import auto_config, single_modality
from mmjax.data.builtin.polyglot_digits import polyglot_digits
from mmjax.encoders import ConvEncoder, RecurrentEncoder, lstm
from mmjax.experiment import Experiment
from mmjax.fusion import Concat
from mmjax.heads import Classification
from mmjax.model import Model
from mmjax.sharing import HardSharing

ARMS = single_modality


@auto_config
def experiment() -> Experiment:
    """Builds conv 32 and 64 with pooling, two LSTM layers of 64, dense 128 and one softmax."""
    return Experiment(
        data=polyglot_digits(missing_modalities=0.0, missing_labels=0.0),
        model=Model(
            encoders={
                "image": ConvEncoder(features=(32, 64)),
                "speech": RecurrentEncoder(cell=lstm(), width=64, layers=2),
            },
            fusion=Concat(),
            sharing=HardSharing(features=(128,)),
            heads={"digit": Classification(10)},
        ),
        optimizer=optax.adam(1e-3),
        epochs=10,
        batch_size=32,
    )


if __name__ == "__main__":
    cli.main(experiment, arms=ARMS)
