"""Trains on AV-MNIST: do image and spoken word together beat the better one of the two alone?

    mmjax data prepare av_mnist --manual-dir DIR
    mmjax run experiments/av_mnist.py --seeds 0 1 2 3 4

Claim 1 of MultiBench (Liang et al. 2021): both modalities beat the better single one (there 71
against 65). Small reference models on the protocol of `mmjax/data/builtin/av_mnist.py`, five seeds,
the same budget for every arm, selection on the validation split.

Measured test accuracy, mean and 95% interval, in 43 minutes on two cores that were busy with other
work:

    arm      digit            speaker
    all      0.890 ± 0.012    0.808 ± 0.015
    image    0.659 ± 0.003    0.169 ± 0.002 (chance is 0.167)
    audio    0.638 ± 0.038    0.773 ± 0.028

Verdict on claim 1: it holds. The digit gains 22.7 points over the better single modality of the
same seed (paired t-test over five seeds, p = 2e-7). The noise was chosen on single seeds, before
this study, so that neither modality suffices.
"""

import flax.linen as nn
import jax.numpy as jnp
import optax
from jaxtyping import Array, Int, Num

from mmjax import cli
from mmjax.balance import equal
from mmjax.config import auto_config, single_modality
from mmjax.data.builtin.av_mnist import av_mnist
from mmjax.encoders import ConvEncoder, MLPEncoder
from mmjax.encoders.mlp import to_float
from mmjax.experiment import Experiment
from mmjax.fusion import Concat
from mmjax.heads import Classification
from mmjax.model import Model
from mmjax.sharing import HardSharing
from mmjax.types import Tokens

ARMS = single_modality


class Averaged(nn.Module):
    """Averages squares of pixels before a convolutional encoder, which therefore costs less.

    Attributes:
      encoder: the encoder of the averages.
      side: side of a square, in pixels.
      slices: number of tokens that the encoder's map is split into along the height of the image,
        which is the time of a spectrogram; 1 keeps the map whole.
    """

    encoder: ConvEncoder
    side: int = 4
    slices: int = 1

    def __call__(
        self, x: Num[Array, "b h w c"], length: Int[Array, " b"] | None = None, *, train: bool
    ) -> Tokens:
        """Maps [b h w c] to `slices` tokens per example."""
        b, h, w, c = x.shape
        rows = to_float(x).reshape(b, h // self.side, self.side, w, c).mean(axis=2)
        averages = rows.reshape(b, h // self.side, w // self.side, self.side, c).mean(axis=3)
        values = self.encoder(averages, length, train=train).values
        values = values.reshape(len(values), self.slices, -1)
        return Tokens(values, jnp.ones(values.shape[:2], bool))


@auto_config
def experiment(epochs: int = 8) -> Experiment:
    """Builds a perceptron for the image and a small CNN for the audio, dense 128, two heads."""
    return Experiment(
        data=av_mnist(),
        model=Model(
            encoders={
                "image": MLPEncoder(features=(128,)),
                "audio": Averaged(encoder=ConvEncoder(features=(8, 16))),
            },
            fusion=Concat(),
            sharing=HardSharing(features=(128,), dropout=0.3),
            heads={"digit": Classification(10), "speaker": Classification(6)},
        ),
        balancer=equal(),
        # 429 steps per epoch: 55,000 examples in batches of 128, without the incomplete last one.
        optimizer=optax.adamw(optax.cosine_decay_schedule(2e-3, decay_steps=429 * epochs)),
        epochs=epochs,
        batch_size=128,
        monitor="digit/accuracy",
    )


if __name__ == "__main__":
    cli.main(experiment, arms=ARMS)
