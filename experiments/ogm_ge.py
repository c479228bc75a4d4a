"""Claim 5: OGM-GE helps, and is fragile: a grid over its strength, the optimizer, and the fusion.

    mmjax ablate experiments/ogm_ge.py --workdir runs/ogm_ge
    mmjax report runs/ogm_ge

Source: Peng et al., "Balanced multimodal learning via on-the-fly gradient modulation", CVPR 2022:
51.7% -> 61.3% on CREMA-D; a re-run on AV-MNIST reached 24.5%.

Three modalities, a vector and two sequences, hold copies of one bit, each flipped with probability
0.15: the best accuracy is 0.85 from one modality and 0.939 from all three, exactly. The vector is
learned first. If it keeps the others from learning, a joint network stays near 0.85, and a method
against imbalance gains. Every arm tunes its learning rate by 4 trials on the validation split.

Expected, if the claim holds: some strengths are better than none under SGD, and the gain changes
with optimizer and fusion. A factor that stays the same has no effect under Adam, which divides by
the size of the gradient.

Measured: not yet.
"""

import optax

from mmjax.config import auto_config
from mmjax.data.builtin.interactions import interactions
from mmjax.encoders import MLPEncoder, RecurrentEncoder, gru
from mmjax.experiment import Experiment
from mmjax.fusion import Concat
from mmjax.heads import Classification
from mmjax.model import Model
from mmjax.study import LogUniform, Study, Tuning

STRENGTHS = {"none": {"balancer": "equal()"}} | {
    f"alpha {alpha}": {"balancer": f"modulated(equal(), ogm_ge(alpha={alpha}))"}
    for alpha in (0.1, 0.5, 1.0)
}


@auto_config
def experiment() -> Experiment:
    """Builds a perceptron and two GRUs, a fusion, and one linear layer."""
    return Experiment(
        data=interactions(
            modalities=("vector", "sequence", "sequence"),
            redundancy=1.0,
            uniqueness=0.0,
            synergy=0.0,
            noise=0.15,
            width=16,
            steps=8,
            train=2048,
        ),
        model=Model(
            encoders={
                "a": MLPEncoder(features=(16,)),
                "b": RecurrentEncoder(cell=gru(), width=16),
                "c": RecurrentEncoder(cell=gru(), width=16),
            },
            fusion=Concat(),
            heads={"redundancy": Classification(2)},
        ),
        optimizer=optax.sgd(0.1, momentum=0.9),
        epochs=8,
        batch_size=64,
    )


STUDY = Study(
    base=experiment,
    axes={
        "strength": STRENGTHS,
        "optimizer": {
            "sgd": {"optimizer": "optax.sgd(0.1, momentum=0.9)"},
            "adam": {"optimizer": "optax.adam(0.01)"},
        },
        "fusion": {
            "concat": {"model.fusion": "Concat()"},
            "late": {"model.fusion": "Late(width=16)"},
        },
    },
    metric="redundancy/accuracy",
    tuning=Tuning(trials=4, space={"optimizer.learning_rate": LogUniform(1e-3, 3e-1)}),
)
