"""Renaming rules for PyTorch's layers, from which all name maps are composed."""

from collections.abc import Mapping

from mmjax.pretrained.renaming import Rename


def rename_linear(source: str, path: str) -> tuple[Rename, ...]:
    """Returns the rules of one `torch.nn.Linear`, or of one per layer of a stack.

    Args:
      source: its name in the file, a pattern of `Rename`.
      path: of the Dense layer.

    Example:
      >>> [rule.path for rule in rename_linear("encoder.{layer}.fc1", "layers/mlp_in")]
      ['layers/mlp_in/kernel', 'layers/mlp_in/bias']
    """
    return (
        Rename(f"{source}.weight", f"{path}/kernel", "linear"),
        Rename(f"{source}.bias", f"{path}/bias"),
    )


def rename_conv(source: str, path: str) -> tuple[Rename, ...]:
    """Returns the rules of one convolution over any number of axes.

    Args:
      source: its name in the file, a pattern of `Rename`.
      path: of the convolution.

    Example:
      >>> [rule.path for rule in rename_conv("conv1", "stem")]
      ['stem/kernel', 'stem/bias']
    """
    return (
        Rename(f"{source}.weight", f"{path}/kernel", "conv"),
        Rename(f"{source}.bias", f"{path}/bias"),
    )


def rename_norm(source: str, path: str) -> tuple[Rename, ...]:
    """Returns the rules of one layer norm; files converted from TensorFlow use gamma and beta.

    Args:
      source: its name in the file, a pattern of `Rename`.
      path: of the norm.

    Example:
      >>> [rule.pattern for rule in rename_norm("norm", "norm")]
      ['norm.weight', 'norm.gamma', 'norm.bias', 'norm.beta']
    """
    return (
        Rename(f"{source}.weight", f"{path}/scale"),
        Rename(f"{source}.gamma", f"{path}/scale"),
        Rename(f"{source}.bias", f"{path}/bias"),
        Rename(f"{source}.beta", f"{path}/bias"),
    )


def rename_block(
    prefix: str, linears: Mapping[str, str], norms: Mapping[str, str]
) -> tuple[Rename, ...]:
    """Returns the rules of the stacked layers that `scan_layers` applies.

    Args:
      prefix: what the names of a layer's arrays begin with, with {layer} for its number.
      linears: {name in the file: name of a Dense layer of `TransformerBlock`}.
      norms: {name in the file: name of a norm}.
    """
    rules: list[Rename] = []
    for source, name in linears.items():
        rules += rename_linear(f"{prefix}{source}", f"layers/{name}")
    for source, name in norms.items():
        rules += rename_norm(f"{prefix}{source}", f"layers/{name}")
    return tuple(rules)


def rename_clip_block() -> tuple[Rename, ...]:
    """Returns the rules of the layers of CLIP and SigLIP, whose two towers have the same names."""
    return rename_block(
        "*encoder.layers.{layer}.",
        {
            "self_attn.q_proj": "attention/query",
            "self_attn.k_proj": "attention/key",
            "self_attn.v_proj": "attention/value",
            "self_attn.out_proj": "attention/out",
            "mlp.fc1": "mlp_in",
            "mlp.fc2": "mlp_out",
        },
        {"layer_norm1": "norm_attention", "layer_norm2": "norm_mlp"},
    )
