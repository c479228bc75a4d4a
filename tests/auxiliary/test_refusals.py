"""What an objective cannot use it refuses, and says what would do."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.auxiliary import (
    CORAL,
    ELBO,
    MFM,
    MMD,
    Decoders,
    DeepCCA,
    InfoNCE,
    Reconstruction,
    RefNet,
    Sown,
)
from mmjax.encoders import MLPEncoder
from mmjax.fusion import Late, Mean, ProductOfExperts
from mmjax.heads import Regression
from mmjax.model import Model
from mmjax.sharing import MMoE
from mmjax.types import Batch

BATCH = Batch(
    inputs={
        "vector": np.zeros((4, 3), np.float32),
        "word": np.zeros((4, 5), np.int32),
        "picture": np.zeros((4, 2, 2), np.uint8),
    },
    present={m: np.ones(4, bool) for m in ("vector", "word", "picture")},
    lengths={"word": np.full(4, 5, np.int32)},
    targets={"size": np.zeros(4, np.float32)},
    labeled={"size": np.ones(4, bool)},
)
WIDTHS = {"vector": 3, "word": 4, "picture": 3}


def start(objective, modalities=("picture", "vector", "word"), fusion=None, **options):
    model = Model(
        encoders={m: MLPEncoder((WIDTHS[m],)) for m in modalities},
        fusion=fusion or Mean(4),
        heads={"size": Regression()},
        auxiliary={"extra": objective},
        **options,
    )
    batch = BATCH._replace(inputs={m: BATCH.inputs[m] for m in modalities})
    init = functools.partial(model.init, method="call_all_parts", mutable=True)
    jax.eval_shape(lambda key: init(key, batch), jax.random.key(0))


PAIR = ("picture", "vector")


@pytest.mark.parametrize(
    ("objective", "options", "message"),
    [
        *(
            (
                kind(modalities=("vector", "smell")),
                {},
                f"{kind.__name__} names the modality 'smell', but the model encodes only",
            )
            for kind in (InfoNCE, DeepCCA, CORAL, MMD, Reconstruction, RefNet)
        ),
        *(
            (
                kind(),
                {"modalities": ("vector",)},
                f"{kind.__name__} compares modalities .* there is only 'vector'; give the model an",
            )
            for kind in (InfoNCE, DeepCCA, CORAL, MMD)
        ),
        *(
            (
                kind(),
                {"modalities": PAIR, "fusion": Late(3)},
                f"{kind.__name__} needs one fused vector per example, but late fusion makes",
            )
            for kind in (Reconstruction, MFM, RefNet)
        ),
        *(
            (
                kind(),
                {},
                f"{kind.__name__} compares vectors of one width, but 'picture' has width 3 and "
                "'word' 4; give their encoders the same width",
            )
            for kind in (CORAL, MMD)
        ),
        (ELBO(), {}, "needs the Gaussian of each modality; use fusion.ProductOfExperts"),
        (
            ELBO(weights={"smell": 2.0}),
            {"modalities": PAIR, "fusion": ProductOfExperts(4)},
            "ELBO names the modality 'smell'",
        ),
        (Reconstruction("smell"), {}, "Reconstruction names the modality 'smell'"),
        (
            Reconstruction("vector"),
            {"modalities": ("vector",)},
            "has source='vector' and nothing else to decode; name another source",
        ),
        (
            Reconstruction(decoders=Decoders(likelihoods={"word": "gaussian"})),
            {},
            "The likelihood of 'word' is 'gaussian', but its input is int32; use 'categorical'",
        ),
        (
            Reconstruction(decoders=Decoders(likelihoods={"vector": "categorical"})),
            {},
            "of 'vector' is 'categorical', but its input is float32; use 'gaussian' or 'bernoulli'",
        ),
        (
            Reconstruction(),
            {},
            r"'word' predicts integer tokens; say how many there are: Decoders\(vocabularies=",
        ),
        (
            Reconstruction(decoders=Decoders(modules={"vector": nn.Dense(7)})),
            {"modalities": PAIR},
            r"The decoder of 'vector' makes \(7,\) of an example, but the input has the shape "
            r"\(3,\)\.",
        ),
        (
            Reconstruction(decoders=Decoders(modules={"word": nn.Dense(5)})),
            {},
            r"'word' makes \(5,\) .* shape \(5,\), to be followed by the classes",
        ),
        *(
            (
                Reconstruction(decoders=Decoders(**{part: {"smell": value}})),
                {"modalities": PAIR},
                rf"Decoders.{part} names 'smell', but the modalities are \['picture', 'vector'\]",
            )
            for part, value in (
                ("modules", nn.Dense(1)),
                ("likelihoods", "gaussian"),
                ("vocabularies", 3),
            )
        ),
        (
            Sown("sharing", "entropy"),
            {"sharing": MMoE(2, (3,))},
            r"Sown names 'entropy', but the model's sharing sows only \['gates'\]",
        ),
        (
            Sown("fusion", "gaussian"),
            {"fusion": ProductOfExperts(4)},
            "'gaussian', but the model's fusion sows under that name a tuple, not an array",
        ),
    ],
)
def test_what_does_not_fit_is_refused(objective, options, message):
    with pytest.raises(ValueError, match=message):
        start(objective, **options)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: InfoNCE(temperature=0.0), "InfoNCE.temperature is 0.0; it must be positive"),
        (lambda: DeepCCA(ridge=0.0), "DeepCCA.ridge is 0.0; it must be positive"),
        (lambda: MMD(bandwidths=(1.0, -2.0)), r"MMD.bandwidths is \(1.0, -2.0\); give positive"),
        (lambda: MMD(bandwidths=()), r"MMD.bandwidths is \(\); give positive"),
    ],
)
def test_values_out_of_range_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_any_flax_module_can_decode():
    """Logits over tokens, and an image by a reshaping network."""

    class Grid(nn.Module):
        @nn.compact
        def __call__(self, z):
            return nn.Dense(4)(z).reshape(len(z), 2, 2)

    words = nn.Sequential([nn.Dense(5 * 9), lambda x: jnp.reshape(x, (len(x), 5, 9))])
    start(Reconstruction(decoders=Decoders(modules={"picture": Grid(), "word": words})))
