"""BERT, RoBERTa and MiniLM: bidirectional text transformers."""

import functools
from typing import Literal, get_args

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Int, Num

from mmjax.data.dataset import Modality
from mmjax.encoders.mlp import as_one_token
from mmjax.encoders.sequence import mean_over_time
from mmjax.kernels.attention import zero_masked_tokens
from mmjax.layers.dropout import Dropout
from mmjax.pretrained.backbones.rename_layers import rename_block, rename_linear, rename_norm
from mmjax.pretrained.backbones.token_ids import (
    check_vocabulary,
    mask_token_ids,
    zero_empty_texts,
)
from mmjax.pretrained.backbones.transformer_layers import (
    Activation,
    TransformerBlock,
    check_choice,
    make_layer_norm,
    scan_layers,
)
from mmjax.pretrained.renaming import Rename
from mmjax.types import Tokens

Output = Literal["all", "class", "mean", "pooled"]


class BERT(nn.Module):
    """Embeds tokens, positions and the first segment, then applies post-norm transformer layers.

    The default is bert-base-uncased. Texts are single: all tokens belong to the first segment.

    Source: Devlin et al., NAACL 2019 (arXiv:1810.04805). Attention weights are not dropped.

    Attributes:
      vocabulary: rows of the embedding table.
      width: of the tokens.
      layers: number of layers.
      heads: attention heads of each.
      hidden: width of an MLP's hidden layer.
      positions: rows of the table of positions.
      first_position: row of the first token's position; 2 in RoBERTa.
      segments: rows of the table of segments.
      activation: that of the MLPs.
      epsilon: of the layer norms.
      dropout: rate on the embedded tokens and on what attention and MLP add, while training.
      output: "all" tokens; "class": the first token, [CLS]; "mean" over the tokens, as in sentence
        embeddings, which are often scaled to length 1 afterwards; "pooled": a layer with tanh on
        the first token.
      remat: whether the backward pass recomputes each layer, to save memory.

    Example:
      >>> import jax
      >>> encoder = BERT(vocabulary=30, width=8, layers=2, heads=2, hidden=16, positions=12)
      >>> text, length = jnp.array([[7, 2, 9], [5, 0, 0]]), jnp.array([3, 1])
      >>> call = functools.partial(encoder.init_with_output, train=False)
      >>> tokens, variables = jax.eval_shape(call, jax.random.key(0), text, length)
      >>> tokens.values.shape, variables["params"]["layers"]["mlp_in"]["kernel"].shape
      ((2, 1, 8), (2, 8, 16))
    """

    vocabulary: int = 30522
    width: int = 768
    layers: int = 12
    heads: int = 12
    hidden: int = 3072
    positions: int = 512
    first_position: int = 0
    segments: int = 2
    activation: Activation = "gelu"
    epsilon: float = 1e-12
    dropout: float = 0.0
    output: Output = "mean"
    remat: bool = False

    def __post_init__(self) -> None:
        check_choice("BERT.output", self.output, get_args(Output))
        super().__post_init__()

    @nn.nowrap
    def check(self, modality: Modality, name: str) -> None:
        """Raises ValueError unless the modality's tokens have vectors and positions."""
        longest = self.positions - self.first_position
        check_vocabulary(modality, name, self.vocabulary, longest)

    @nn.compact
    def __call__(
        self, x: Num[Array, "b ..."], length: Int[Array, " b"] | None = None, *, train: bool
    ) -> Tokens:
        """Maps token ids [b time] to tokens; a text of length 0 gives zeros.

        Raises:
          ValueError: if x is not integers [b time], or longer than the table of positions.
        """
        ids, mask = mask_token_ids(x, length, self.positions - self.first_position, "BERT")
        embed = functools.partial(nn.Embed, features=self.width)
        position = jnp.arange(ids.shape[1]) + self.first_position
        values = (
            embed(self.vocabulary, name="words")(ids)
            + embed(self.positions, name="positions")(position)[None]
            + embed(self.segments, name="segments")(jnp.zeros((1, 1), jnp.int32))
        )
        values = make_layer_norm(self.epsilon, "norm")(values)
        values = Dropout(self.dropout)(values, train=train)
        block = TransformerBlock(
            self.heads,
            self.hidden,
            self.activation,
            self.epsilon,
            self.dropout,
            norm="post",
            name="layers",
        )
        values = scan_layers(
            block, self.layers, values, mask[:, None, None], remat=self.remat, train=train
        )
        if self.output == "all":
            return zero_masked_tokens(Tokens(values, mask))
        if self.output == "mean":
            return as_one_token(mean_over_time(values, mask))
        first = values[:, 0]
        if self.output == "pooled":
            first = jnp.tanh(nn.Dense(self.width, name="pooler")(first))
        return zero_empty_texts(first, length)


def roberta_base(dropout: float = 0.0, output: Output = "mean", remat: bool = False) -> BERT:
    """Returns RoBERTa-base.

    Source: Liu et al., 2019 (arXiv:1907.11692).

    Args:
      dropout: as in `BERT`.
      output: as in `BERT`.
      remat: as in `BERT`.

    Example:
      >>> roberta_base().positions
      514
    """
    return BERT(
        vocabulary=50265,
        positions=514,
        first_position=2,  # rows 0 and 1 are left from the time when padding had positions
        segments=1,
        epsilon=1e-5,
        dropout=dropout,
        output=output,
        remat=remat,
    )


def minilm(
    layers: int = 6, dropout: float = 0.0, output: Output = "mean", remat: bool = False
) -> BERT:
    """Returns all-MiniLM-L6-v2, or with 12 layers all-MiniLM-L12-v2.

    Source: Wang et al., NeurIPS 2020 (arXiv:2002.10957).

    Args:
      layers: number of layers.
      dropout: as in `BERT`.
      output: as in `BERT`.
      remat: as in `BERT`.

    Example:
      >>> minilm().width
      384
    """
    return BERT(
        width=384,
        hidden=1536,
        layers=layers,
        dropout=dropout,
        output=output,
        remat=remat,
    )


def bert_names(output: Output = "mean") -> tuple[Rename, ...]:
    """Returns the names in files of Hugging Face's `BertModel`, `RobertaModel` and their heads.

    Args:
      output: that of the `BERT`; only "pooled" uses the arrays of the pooler.

    Example:
      >>> bert_names()[0].path
      'words/embedding'
    """
    embeddings = {
        "word_embeddings": "words",
        "position_embeddings": "positions",
        "token_type_embeddings": "segments",
    }
    tables = (Rename(f"*embeddings.{k}.weight", f"{v}/embedding") for k, v in embeddings.items())
    layers = rename_block(
        "*encoder.layer.{layer}.",
        {
            "attention.self.query": "attention/query",
            "attention.self.key": "attention/key",
            "attention.self.value": "attention/value",
            "attention.output.dense": "attention/out",
            "intermediate.dense": "mlp_in",
            "output.dense": "mlp_out",
        },
        {"attention.output.LayerNorm": "norm_attention", "output.LayerNorm": "norm_mlp"},
    )
    pooler = rename_linear("*pooler.dense", "pooler") if output == "pooled" else ()
    unused = ("*pooler.*", "cls.*", "lm_head.*", "classifier.*", "*position_ids")
    return (
        *tables,
        *rename_norm("*embeddings.LayerNorm", "norm"),
        *layers,
        *pooler,
        *(Rename(pattern, None) for pattern in unused),
    )
