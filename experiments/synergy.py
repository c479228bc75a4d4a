"""Studies which fusions can learn what no modality tells alone.

    mmjax ablate experiments/synergy.py --workdir runs/synergy
    mmjax report runs/synergy

Two labels are made from bits that a vector and a sequence contain (see
`mmjax/data/builtin/interactions.py`): `redundancy`, of which both contain a copy, and `synergy_ab`,
the exclusive or of one bit in each. A sum of functions of single modalities cannot predict the
second label better than chance.

Expected: the additive fusions (concat, sum, mean, late) stay at 0.5 on synergy, the multiplicative,
tensor and attention fusions reach the exact best accuracy, and on redundancy all tie. The study is
estimated to take 7 minutes on 2 CPU cores.

Measured test accuracy, mean and 95% interval over seeds 0 to 4; the exact best is 0.9689 for both
labels (`results/synergy.png`):

    fusion                                               synergy_ab            redundancy
    concat, sum, mean, late, late learned, embrace       0.500 to 0.504        0.966
    scalar                                               0.698 ± 0.306         0.966
    attention pool                                       0.9667 ± 0.0003       0.966
    gated, film, max, vector, matrix, tensor, low rank,  0.9668 to 0.9672      0.966
    product of experts, early transformer, cross-modal,
    bottleneck, perceiver

The expectation is met: twelve fusions and attention pooling beat concat (paired t-tests with Holm's
correction, each p < 0.001) and no additive one does. One factor for the whole vector (scalar)
learns synergy with two seeds of five. Embrace draws each entry from one modality, so it is additive
too.

Verdict on claim 7, second half (tensor fusion wins under synergy): it holds, with 0.967 against
0.50 of concat; so does every other fusion in which one modality scales or attends to another.
"""

import optax

from mmjax.config import auto_config
from mmjax.data.builtin.interactions import interactions
from mmjax.encoders import MLPEncoder, RecurrentEncoder, gru
from mmjax.experiment import Experiment
from mmjax.fusion import Concat
from mmjax.heads import Classification
from mmjax.model import Model
from mmjax.study import Study

FUSIONS = {
    "concat": "Concat()",
    "sum": "Sum(width=32)",
    "mean": "Mean(width=32)",
    "late": "Late(width=32)",
    "late, learned": "Late(width=32, learned=True)",
    "embrace": "Embrace(width=32)",
    "product of experts": "ProductOfExperts(width=32)",
    "max": "Max(width=32)",
    "gated": "Gated(width=32)",
    "film": "FiLM(width=32)",
    "scalar": "Multiplicative(width=32, form='scalar')",
    "vector": "Multiplicative(width=32, form='vector')",
    "matrix": "Multiplicative(width=16)",
    "tensor": "Tensor(width=8)",
    "low rank": "LowRankTensor(width=32)",
    "attention pool": "AttentionPool(width=32, heads=4)",
    "early transformer": "EarlyTransformer(width=32)",
    "cross-modal": "CrossModal(width=32)",
    "bottleneck": "Bottleneck(width=32)",
    "perceiver": "Perceiver(width=32)",
}


@auto_config
def experiment() -> Experiment:
    """Builds a perceptron and a GRU, a fusion, and one linear layer per label."""
    return Experiment(
        data=interactions(redundancy=0.8, uniqueness=0.0, synergy=0.8),
        model=Model(
            encoders={
                "a": MLPEncoder(features=(32,)),
                "b": RecurrentEncoder(cell=gru(), width=32, output="all"),
            },
            fusion=Concat(),
            heads={"redundancy": Classification(2), "synergy_ab": Classification(2)},
        ),
        # 128 steps per epoch: 16,384 examples in batches of 128.
        optimizer=optax.adam(optax.cosine_decay_schedule(2e-3, decay_steps=128 * 12)),
        epochs=12,
        batch_size=128,
    )


STUDY = Study(
    base=experiment,
    axes={"fusion": {name: {"model.fusion": call} for name, call in FUSIONS.items()}},
    metric="synergy_ab/accuracy",
)
