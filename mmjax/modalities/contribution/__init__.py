"""Contributions of modalities to a trained model, and their interactions.

Which modality does the work, what do they tell together, and what is lost without one: see
docs/contribution.md, which says when each measure can be trusted.
"""

from mmjax.modalities.contribution.additive_projection import (
    choose_sample_size,
    project_additively,
)
from mmjax.modalities.contribution.exchanged_inputs import permute_modality
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
    "choose_sample_size",
    "compute_conditional_utilization",
    "compute_interaction_indices",
    "compute_intershap",
    "compute_shapley_values",
    "decompose_information",
    "permute_modality",
    "project_additively",
]
