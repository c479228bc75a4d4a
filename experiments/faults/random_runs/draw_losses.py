"""Draws random auxiliary objectives and balancers, as text, that fit a model."""

import random

from random_runs.draw_data import Data
from random_runs.draw_model import Parts, write_dict

LOSS_BALANCERS = """
cosmos() dwa(steps=2) equal() famo() geometric() imtl_l() log_stch(warmup=1) pbi() rlw()
scale_invariant() stch() uncertainty()
"""
# They compare the gradients of the parameters that tasks share, so that there must be some.
GRADIENT_BALANCERS = """
aligned() cagrad() conflict_free() db_mtl() dualproj() excess_mtl() fairgrad() graddrop() gradnorm()
gradvac() imtl_g() krum() mgda() moco() modo() nash() nash(every=2) pcgrad() sdmgrad()
trimmed_mean() upgrad() cagrad(rescale=True)
"""
# They need one vector of features that is the input of all heads.
FEATURE_BALANCERS = """
upgrad(wrt="features") mgda(wrt="features") pcgrad(wrt="features",weigh_heads=True)
"""
WRAPPERS = (
    "imbalance.modulated({}, imbalance.ogm_ge(noise=False))",
    "imbalance.modulated({}, imbalance.ogm_ge())",
    "imbalance.modulated({}, imbalance.agm(), steps=3)",
    "imbalance.modulated({}, imbalance.cggm())",
    "imbalance.opm({})",
    "imbalance.amco({}, steps=3)",
    "imbalance.info_reg({}, steps=4)",
)


def draw_losses(
    rng: random.Random, data: Data, parts: Parts, *, share: bool
) -> tuple[dict[str, str], str]:
    """Draws auxiliary objectives {name: text} and the balancer of their and the tasks' losses.

    Args:
      rng: random numbers.
      data: the data set.
      parts: the parts of the model.
      share: whether the tasks share parameters that train.
    """
    several = len(data.modalities) > 1
    if several and rng.random() < 0.2:
        return draw_unimodal(rng, data, parts, share=share)
    auxiliary = {}
    if rng.random() < 0.4:
        candidates = list_objectives(rng, data, parts)
        for i, text in enumerate(
            rng.sample(candidates, min(rng.choice((1, 1, 2)), len(candidates)))
        ):
            auxiliary[f"extra_{i}"] = text
    balancer = draw_balancer(rng, share=share)
    if share and parts.sharing.startswith("sharing.Hard") and not auxiliary and rng.random() < 0.3:
        balancer = f"balance.{rng.choice(FEATURE_BALANCERS.split())}"
    if several and rng.random() < 0.2:
        balancer = rng.choice(WRAPPERS).format(balancer)
    return auxiliary, balancer


def draw_balancer(rng: random.Random, *, share: bool) -> str:
    """Draws a balancer of the tasks' losses."""
    kinds = LOSS_BALANCERS + GRADIENT_BALANCERS * share
    return f"balance.{rng.choice(kinds.split())}"


def list_objectives(rng: random.Random, data: Data, parts: Parts) -> list[str]:
    """Lists auxiliary objectives that fit a model."""
    numeric = tuple(m for m, k in data.modalities.items() if k in ("vector", "image", "sequence"))
    objectives = []
    if len(data.modalities) > 1:
        objectives += ["InfoNCE(4)", "InfoNCE(4, mix=0.5)", "DeepCCA(2)"]
        if not any("Features" in text or "elman" in text for text in parts.encoders.values()):
            objectives += ["MMD()", "CORAL()"]  # need encoders of one width, here 4
    if numeric:
        source = rng.choice(list(data.modalities)) if numeric[1:] or parts.is_late else "fused"
        if (source,) != numeric:
            objectives.append(f"Reconstruction({source!r}, {numeric})")
    if not parts.is_late:
        objectives.append("RefNet((4,))")
        if len(numeric) == len(data.modalities):
            objectives.append("MFM(2, 4)")
            if "ProductOfExperts" in parts.fusion:
                objectives += ["ELBO()"] * 3
    for part, name, text in (
        (parts.fusion, "ShaSpec", "ShaSpecLosses()"),
        (parts.fusion, "ActionMAE", "Sown('fusion', 'reconstruction')"),
        (parts.sharing, "DSelectK", "Sown('sharing', 'entropy')"),
        (parts.fusion, "Late", "BranchLosses()"),
    ):
        objectives += [text] * 3 * (name in part)
    found = [f"auxiliary.{text}" for text in objectives]
    for task, labels in data.tasks.items():
        if labels.has_one_class:
            found += list_class_objectives(task, labels.classes, data, parts)
    return found


def list_class_objectives(task: str, classes: int, data: Data, parts: Parts) -> list[str]:
    """Lists auxiliary objectives of a task of classes."""
    found = []
    if len(data.modalities) > 1:
        found += [
            f"imbalance.ConfidenceOrder({task!r})",
            f"imbalance.ModalityValuation({task!r})",
            f"imbalance.PrototypeRebalance({task!r}, {classes}, entropy_steps=2)",
            f"imbalance.GradientDirection({task!r}, {parts.heads[task]})",
        ]
    if parts.is_late:
        found.append(f"auxiliary.ConfidenceRanking(({task!r},))")
    if "Evidential" in parts.heads[task]:
        found += [f"auxiliary.DirichletKL(({task!r},), annealing_steps=3)"] * 3
    return found


def draw_unimodal(
    rng: random.Random, data: Data, parts: Parts, *, share: bool
) -> tuple[dict[str, str], str]:
    """Draws a loss per modality, and a method that combines it with those of the tasks."""
    task = rng.choice(list(data.tasks))
    labels, head = data.tasks[task], parts.heads[task]
    methods = ["gradient_blend", "mmpareto", "mla", "ume"]
    if labels.has_one_class:
        methods += ["reconboost", "relearn"]
    method = rng.choice(methods)
    by_modality, losses = {}, {}
    own_head = method != "mla" and rng.random() < 0.5
    for m in data.modalities:
        by_modality[f"only_{m}"] = repr(m)
        losses[f"only_{m}"] = {
            "reconboost": f"imbalance.ResidualBoosting({m!r}, {task!r})",
            "relearn": f"imbalance.ClusterImpurity({m!r}, {task!r}, {labels.classes})",
        }.get(method, f"imbalance.UnimodalLoss({m!r}, {task!r}, {head}, own_head={own_head})")
    arguments = {
        "gradient_blend": write_dict(dict.fromkeys(losses, repr(task))),
        "ume": repr(tuple(losses)),
        "relearn": f"{draw_balancer(rng, share=share)}, {write_dict(by_modality)}",
    }.get(method, write_dict(by_modality))
    return losses, f"imbalance.{method}({arguments})"
