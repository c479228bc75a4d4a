"""Contributions of modalities to a trained model, and their interactions.

Which modality does the work, what do they tell together, and what is lost without one: see
docs/contribution.md, which says when each measure can be trusted.
"""

from mmjax.modalities.contribution.exchanged_inputs import (
    draw_partner_rows,
    permute_modality,
    project_additively,
)
from mmjax.modalities.contribution.information_parts import (
    InformationParts,
    decompose_information,
)
from mmjax.modalities.contribution.shapley import (
    compute_conditional_utilization,
    compute_interaction_indices,
    compute_intershap,
    compute_shapley_values,
)

__all__ = [
    "InformationParts",
    "compute_conditional_utilization",
    "compute_interaction_indices",
    "compute_intershap",
    "compute_shapley_values",
    "decompose_information",
    "draw_partner_rows",
    "permute_modality",
    "project_additively",
]
