"""Says in words which modality does the work, what they tell together, and what one is worth."""

from collections.abc import Mapping

import numpy as np

from mmjax.backbone import join_modalities
from mmjax.modalities.contribution.measure_run import Contribution
from mmjax.modalities.contribution.measures import Estimate, Key, group_by_measure

_SMALL_SHARE = 0.1  # of what all modalities gain; less is called little


def describe_contribution(contribution: Contribution) -> str:
    """Describes the measures of every metric in a few sentences each.

    "Clearly" means that the 95% interval over the examples excludes 0.
    """
    return "\n\n".join(
        _describe_metric(name, estimates, contribution)
        for name, estimates in contribution.metrics.items()
    )


def _describe_metric(
    name: str, estimates: Mapping[Key, Estimate], contribution: Contribution
) -> str:
    groups = group_by_measure(estimates)
    subsets, shapley = groups["subset"], groups["shapley"]
    whole, none = subsets[join_modalities(contribution.modalities)], subsets["none"]
    gain = sum(value.mean for value in shapley.values())
    text = (
        f"{name} is {_format(whole)} from all modalities and {_format(none)} from none, by the "
        f"model's own predictions on the {contribution.split} split."
    )
    if not np.isfinite(gain) or gain <= 0:
        return f"{text} The modalities together gain nothing that could be shared out."
    ranked = sorted(shapley, key=lambda m: -shapley[m].mean)
    shares = ", ".join(f"{m} {shapley[m].mean / gain:.0%}" for m in ranked)
    text += (
        f" {_name_worker(ranked, shapley, gain)} (shares of the gain by Shapley value: {shares})."
    )
    text += f" {_describe_losses(groups)}"
    return f"{text} {_describe_interactions(groups, gain)}"


def _name_worker(ranked: list[str], shapley: Mapping[str, Estimate], gain: float) -> str:
    """Names the modality that does most of the work, if one does."""
    first, second = ranked[:2]
    if shapley[first].low > shapley[second].high:
        others = "all" if shapley[first].mean > (1 - _SMALL_SHARE) * gain else "most"
        return f"{first} does {others} of the work"
    return f"{first} and {second} do about the same share of the work"


def _describe_losses(groups: Mapping[str, Mapping[str, Estimate]]) -> str:
    """Says what is lost without a modality, and if its values are those of other examples."""
    lost = groups["utilization"]
    text = ", ".join(f"hiding {m} loses {value.mean:.1%} of it" for m, value in lost.items())
    text = text[:1].upper() + text[1:]
    if permuted := groups.get("permutation"):
        parts = [f"{m} {_format(value)}" for m, value in permuted.items()]
        text += f"; exchanging a modality between examples loses: {', '.join(parts)}"
    idle = [m for m, value in lost.items() if value.low <= 0 <= value.high]
    return text + (f"; {' and '.join(idle)} could be spared." if idle else ".")


def _describe_interactions(groups: Mapping[str, Mapping[str, Estimate]], gain: float) -> str:
    """Says what pairs of modalities tell together."""
    parts = []
    for pair, value in groups["interaction"].items():
        names = pair.replace("+", " and ")
        if abs(value.mean) < _SMALL_SHARE * gain or value.low <= 0 <= value.high:
            parts.append(f"{names} hardly interact")
        elif value.mean > 0:
            parts.append(f"{names} tell more together than apart (synergy, {_format(value)})")
        else:
            parts.append(f"{names} tell much of the same (redundancy, {_format(value)})")
    text = f"Pairs: {'; '.join(parts)}."
    gap = groups.get("additive gap", {}).get("")
    if gap is None:
        return text
    if gap.low <= 0 <= gap.high or gap.mean < 0:
        return f"{text} A sum of functions of single modalities would do as well (EMAP)."
    return f"{text} The best sum of functions of single modalities loses {_format(gap)} (EMAP)."


def _format(estimate: Estimate) -> str:
    return f"{estimate.mean:.3f}" if abs(estimate.mean) < 10 else f"{estimate.mean:.1f}"
