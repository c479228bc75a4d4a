"""The public constructors: everything that a configuration may call or hold by name.

A stored configuration may come from anybody, so what it names is looked up in this list. Nothing
is imported because a configuration names it, and a name that is not listed is refused, whatever
module it belongs to. All of the list is free of side effects, except for the functions that make
data sets: they read files, and write only as `mmjax.config.trust` permits.

A name may be listed only if it neither opens files or connections, nor imports or runs code
that its arguments name, nor changes the state of a library.
"""

import importlib
import sys
from collections.abc import Iterable, Iterator
from functools import cache
from types import FunctionType
from typing import Any, NamedTuple

from mmjax.old_names import find_current_name

# mmjax's packages list their public names themselves, in `__all__`.
CONSTRUCTOR_PACKAGES = (
    "mmjax.encoders",
    "mmjax.pretrained.backbones",
    "mmjax.fusion",
    "mmjax.sharing",
    "mmjax.heads",
    "mmjax.auxiliary",
    "mmjax.balance",
    "mmjax.modalities.imbalance",
    "mmjax.data",
)
_INITIALIZERS = """constant delta_orthogonal glorot_normal glorot_uniform he_normal he_uniform
    kaiming_normal kaiming_uniform lecun_normal lecun_uniform normal ones orthogonal
    truncated_normal uniform variance_scaling xavier_normal xavier_uniform zeros"""
_ACTIVATIONS = """celu elu gelu glu hard_sigmoid hard_silu hard_swish hard_tanh leaky_relu
    log_sigmoid log_softmax logsumexp one_hot relu relu6 selu sigmoid silu soft_sign softmax
    softplus standardize swish tanh dot_product_attention"""
CONSTRUCTOR_NAMES = {
    "mmjax.experiment": "Experiment",
    "mmjax.model": "Model",
    "mmjax.optim": "per_path scale_by_depth unfreeze_at",
    "mmjax.pretrained": "LoRA Rename weights",
    "mmjax.pretrained.renaming": "recurrent_names",
    "mmjax.losses": """cross_entropy binary_cross_entropy focal binary_focal cumulative_link coral
        dirichlet_cross_entropy squared_error absolute_error huber""",
    "mmjax.metrics": """adaptive_calibration_error auroc average_precision balanced_accuracy
        brier_score calibration_error classwise_calibration_error cohen_kappa dice
        excess_risk_coverage_area matthews_correlation mean_absolute_error
        mean_absolute_percentage_error mean_pinball_loss negative_log_likelihood pearson r2
        risk_coverage_area root_mean_squared_error span_f1 spearman top_k_accuracy
        tuned_macro_f1""",
    "mmjax.data.augment": "shift_and_crop spec_augment token_dropout gaussian_noise chain",
    "mmjax.data.builtin.av_mnist": "Noise",
    "mmjax.data.dataset": "Modality Task",
    "mmjax.data.missing": "at_random by_label by_pattern",
    "mmjax.data.builtin.polyglot_digits": "Noise",
    "mmjax.data.audio.spectrogram": "Spectrogram",
    "optax": """adabelief adadelta adafactor adagrad adam adamax adamaxw adamw adan amsgrad fromage
        lamb lars lbfgs lion nadam nadamw noisy_sgd novograd optimistic_adam optimistic_adam_v2
        optimistic_gradient_descent polyak_sgd radam rmsprop rprop sgd sign_sgd signum sm3 yogi
        identity set_to_zero stateless stateless_with_tree_map with_extra_args_support
        scale_by_factored_rms scale_by_backtracking_linesearch scale_by_zoom_linesearch lookahead
        apply_every centralize normalize_by_update_norm scale scale_by_adadelta scale_by_adam
        scale_by_adamax scale_by_adan scale_by_amsgrad scale_by_belief
        scale_by_distance_over_gradients scale_by_lbfgs scale_by_learning_rate scale_by_lion
        scale_by_novograd scale_by_optimistic_gradient scale_by_param_block_norm
        scale_by_param_block_rms scale_by_polyak scale_by_radam scale_by_rms scale_by_rprop
        scale_by_rss scale_by_schedule scale_by_sign scale_by_sm3 scale_by_stddev
        scale_by_trust_ratio scale_by_yogi adaptive_grad_clip clip clip_by_block_rms
        clip_by_global_norm keep_params_nonnegative zero_nans chain partition multi_transform
        named_chain trace ema add_noise add_decayed_weights apply_if_finite conditionally_mask
        conditionally_transform flatten freeze selective_transform masked measure_with_ema monitor
        snapshot MultiSteps skip_large_updates skip_not_finite GradientTransformation
        GradientTransformationExtraArgs constant_schedule cosine_decay_schedule
        cosine_onecycle_schedule exponential_decay join_schedules linear_onecycle_schedule
        linear_schedule piecewise_constant_schedule piecewise_interpolate_schedule
        polynomial_schedule sgdr_schedule warmup_constant_schedule warmup_cosine_decay_schedule
        warmup_exponential_decay_schedule inject_hyperparams inject_stateful_hyperparams
        convex_kl_divergence cosine_distance cosine_similarity ctc_loss generalized_kl_divergence
        hinge_loss huber_loss kl_divergence l2_loss log_cosh ntxent sigmoid_binary_cross_entropy
        smooth_labels safe_softmax_cross_entropy softmax_cross_entropy
        softmax_cross_entropy_with_integer_labels squared_error sigmoid_focal_loss""",
    "optax.losses": """kl_divergence_with_log_targets multiclass_hinge_loss
        multiclass_perceptron_loss multiclass_sparsemax_loss perceptron_loss
        poly_loss_cross_entropy sparsemax_loss ranking_softmax_loss binary_dice_loss dice_loss
        multiclass_generalized_dice_loss triplet_margin_loss""",
    "optax.contrib": """differentially_private_aggregate dpsgd acprop scale_by_acprop ademamix
        scale_by_ademamix
        scale_by_simplified_ademamix simplified_ademamix adopt scale_by_adopt cocob scale_by_cocob
        split_real_and_imaginary dadapt_adamw dog dowg galore scale_by_galore madgrad
        scale_by_madgrad mechanize momo momo_adam muon scale_by_muon prodigy reduce_on_plateau
        normalize sam schedule_free schedule_free_adamw schedule_free_sgd
        hutchinson_estimator_diag_hessian sophia""",
    "jax.nn": _ACTIVATIONS + " identity sparse_plus sparse_sigmoid squareplus mish log1mexp",
    "jax.numpy": """bfloat16 bool_ complex64 complex128 float16 float32 float64 int8 int16 int32
        int64 uint8 uint16 uint32 uint64 abs absolute add arccos arccosh arcsin arcsinh arctan
        arctan2 arctanh cbrt ceil clip concatenate cos cosh divide exp exp2 expm1 floor hypot log
        log10 log1p log2 logaddexp maximum max mean median min minimum multiply negative power prod
        reciprocal round sign sin sinc sinh sqrt square stack std subtract sum tan tanh var where
        zeros_like ones_like""",
    "jax.nn.initializers": _INITIALIZERS,
    "flax.linen": """PReLU MultiHeadAttention MultiHeadDotProductAttention SelfAttention Sequential
        ConvLocal ConvTranspose Conv DenseGeneral Dense Einsum Embed BatchNorm GroupNorm
        InstanceNorm LayerNorm RMSNorm SpectralNorm WeightNorm Bidirectional ConvLSTMCell GRUCell
        LSTMCell MGUCell OptimizedLSTMCell RNN SimpleCell Dropout BatchApply avg_pool max_pool pool
        normalize zeros_init ones_init """
    + _ACTIVATIONS,
    "flax.linen.initializers": _INITIALIZERS + " zeros_init ones_init",
}
# The functions that make the arms of a run from its configuration.
ARM_FUNCTIONS = {
    ("mmjax.config.arms", "single_modality"),
    ("mmjax.config.arms", "single_task"),
}
_MODULES = (*CONSTRUCTOR_PACKAGES, *CONSTRUCTOR_NAMES)


class Constructor(NamedTuple):
    """A listed object with the module and the name that users write."""

    module: str
    name: str
    value: Any


@cache
def list_constructors() -> dict[tuple[str, str], Constructor]:
    """Returns {(module, name): constructor}, by the public name and by the place of definition.

    Runs stored before a name had its public place hold the place of definition.
    """
    public = {constructor[:2]: constructor for constructor in _iterate_constructors(_MODULES)}
    defined: dict[tuple[str, str], Constructor] = {}
    for constructor in public.values():
        home = getattr(constructor.value, "__module__", None)
        inner = getattr(constructor.value, "__qualname__", constructor.name)
        if isinstance(home, str) and isinstance(inner, str):
            defined.setdefault((home, inner), constructor)
    return defined | public


def find_constructor_by_name(module: str, name: str) -> Constructor | None:
    """Returns the constructor that a stored configuration names; None if it is not listed."""
    listed = list_constructors()
    return listed.get((module, name)) or listed.get(find_current_name(module, name))


def find_constructor_by_value(value: Any) -> Constructor | None:
    """Returns the constructor of an object, by its first public name; None if not listed."""
    return _index_loaded_modules().get(id(value))


def is_constructor(value: Any) -> bool:
    """Checks whether a value is one of the listed objects itself."""
    return id(value) in _index_loaded_modules()


@cache
def is_data_constructor(function: Any) -> bool:
    """Checks whether a listed function makes a data set, for which it may read files."""
    from mmjax.config import type_hints
    from mmjax.data.dataset import Dataset

    return is_constructor(function) and (
        isinstance(function, FunctionType)
        and type_hints.resolve_annotations(function).get("return") is Dataset
    )


def _index_loaded_modules() -> dict[int, Constructor]:
    """Returns the constructors by identity, without importing those that nothing has made yet."""
    return _index_by_identity(tuple(filter(sys.modules.__contains__, _MODULES)))


@cache
def _index_by_identity(modules: tuple[str, ...]) -> dict[int, Constructor]:
    index: dict[int, Constructor] = {}
    for constructor in _iterate_constructors(modules):
        index.setdefault(id(constructor.value), constructor)
    return index


def _iterate_constructors(modules: Iterable[str]) -> Iterator[Constructor]:
    """Yields the entries of these modules that the installed versions have."""
    for home in modules:
        module = importlib.import_module(home)
        is_package = home in CONSTRUCTOR_PACKAGES
        for name in module.__all__ if is_package else CONSTRUCTOR_NAMES[home].split():
            value = getattr(module, name, None)
            if isinstance(value, type | FunctionType) if is_package else value is not None:
                yield Constructor(home, name, value)
