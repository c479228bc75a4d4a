"""The models of the cases, written plainly in PyTorch: Batch of tensors -> {task: prediction}."""

import math
from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F  # noqa: N812, its usual name
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence

from mmjax.types import Batch

EPS = 1e-6  # the default of flax's norms


class Textbook(nn.Module):
    """Conv 32 and 64, two LSTM layers of 64, dense 128, two softmaxes of 10."""

    def __init__(self) -> None:
        super().__init__()
        self.image = make_conv_encoder()
        self.speech = nn.LSTM(20, 64, num_layers=2, batch_first=True)
        self.dense = nn.Linear(7 * 7 * 64 + 64, 128)
        self.heads = nn.ModuleDict({task: nn.Linear(128, 10) for task in ("digit", "parity")})

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Returns the logits of both tasks."""
        _, (last, _) = self.speech(batch.inputs["speech"])
        x = torch.cat([self.image(batch.inputs["image"]), last[-1]], dim=1)
        x = F.relu(self.dense(x))
        return {task: head(x) for task, head in self.heads.items()}


class LeNet(nn.Module):
    """Conv 10 and 20 of 5x5 without padding, dense 50, and for each task 50 -> 50 -> 10."""

    def __init__(self, tasks: Sequence[str]) -> None:
        super().__init__()
        self.trunk = nn.Sequential(
            nn.Conv2d(1, 10, 5),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(10, 20, 5),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(4 * 4 * 20, 50),
            nn.ReLU(),
        )
        self.heads = nn.ModuleDict(
            {task: nn.Sequential(nn.Linear(50, 50), nn.ReLU(), nn.Linear(50, 10)) for task in tasks}
        )

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Returns the logits of all tasks."""
        x = self.trunk(batch.inputs["image"])
        return {task: head(x) for task, head in self.heads.items()}


class LateFusion(nn.Module):
    """One LeNet per modality with group norm, concatenation, one softmax of 10."""

    def __init__(self, blocks: Mapping[str, int]) -> None:
        super().__init__()
        self.towers = nn.ModuleDict(
            {m: make_normed_conv_encoder(n) for m, n in sorted(blocks.items())}
        )
        self.head = nn.Linear(sum(6 * 2 ** (n - 1) for n in blocks.values()), 10)

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Returns the logits."""
        x = torch.cat([tower(batch.inputs[m]) for m, tower in self.towers.items()], dim=1)
        return {"digit": self.head(x)}


class Polyglot(nn.Module):
    """Image, speech and text, of which some are missing, and three tasks."""

    def __init__(self) -> None:
        super().__init__()
        self.image = make_conv_encoder()
        self.speech = nn.GRU(24, 64, batch_first=True, bidirectional=True)
        self.embed = nn.Embedding(257, 32)
        self.text = nn.GRU(32, 64, batch_first=True)
        self.dense = nn.Linear(2 * 2 * 64 + 128 + 64, 128)
        self.dropout = nn.Dropout(0.2)
        outputs = {"digit": 10, "language": 8, "rate": 1}
        self.heads = nn.ModuleDict({task: nn.Linear(128, n) for task, n in outputs.items()})

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Returns the logits of digit and language, and the standardized rate."""
        inputs, lengths = batch.inputs, batch.lengths
        vectors = {
            "image": self.image(inputs["image"]),
            "speech": encode_last_state(self.speech, inputs["speech"], lengths["speech"]),
            "text": encode_last_state(self.text, self.embed(inputs["text"]), lengths["text"]),
        }
        visible = [v.masked_fill(~batch.present[m][:, None], 0) for m, v in vectors.items()]
        x = self.dropout(F.relu(self.dense(torch.cat(visible, dim=1))))
        predictions = {task: head(x) for task, head in self.heads.items()}
        return predictions | {"rate": predictions["rate"][:, 0]}


class CrossModal(nn.Module):
    """Each modality attends to the other, the results attend to themselves; one softmax of 10."""

    def __init__(self, names: Sequence[str], width: int, layers: int, heads: int) -> None:
        super().__init__()
        self.first, self.second = names
        self.project = nn.ModuleDict({m: nn.Linear(width, width) for m in names})
        self.cross = nn.ModuleDict({m: Stack(width, layers, heads, cross=True) for m in names})
        self.memory = nn.ModuleDict({m: Stack(width, layers, heads) for m in names})
        self.head = nn.Linear(2 * width, 10)

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Returns the logits."""
        x = {m: project(batch.inputs[m]) for m, project in self.project.items()}
        other = {self.first: x[self.second], self.second: x[self.first]}
        fused = {m: self.memory[m](self.cross[m](x[m], other[m])).mean(dim=1) for m in x}
        return {"class": self.head(torch.cat(list(fused.values()), dim=1))}


class Stack(nn.Module):
    """Several layers, and a norm at the end."""

    def __init__(self, width: int, layers: int, heads: int, cross: bool = False) -> None:
        super().__init__()
        self.layers = nn.ModuleList(Layer(width, heads, cross) for _ in range(layers))
        self.norm = nn.LayerNorm(width, eps=EPS)

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Maps tokens to tokens."""
        for layer in self.layers:
            x = layer(x, context)
        return self.norm(x)


class Layer(nn.Module):
    """A pre-norm transformer layer, with a norm for the context if that is another modality."""

    def __init__(self, width: int, heads: int, cross: bool) -> None:
        super().__init__()
        self.norm_queries = nn.LayerNorm(width, eps=EPS)
        self.norm_context = nn.LayerNorm(width, eps=EPS) if cross else None
        self.attention = nn.MultiheadAttention(width, heads, bias=False, batch_first=True)
        self.norm_mlp = nn.LayerNorm(width, eps=EPS)
        self.mlp = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(approximate="tanh"), nn.Linear(4 * width, width)
        )

    def forward(self, x: Tensor, context: Tensor | None) -> Tensor:
        """Returns x + attention, then that plus the MLP."""
        queries = self.norm_queries(x)
        if self.norm_context is None or context is None:
            keys = queries
        else:
            keys = self.norm_context(context)
        x = x + self.attention(queries, keys, keys, need_weights=False)[0]
        return x + self.mlp(self.norm_mlp(x))


def make_conv_encoder() -> nn.Sequential:
    """Makes conv 32 and 64 of 3x3 with pooling."""
    return nn.Sequential(
        nn.Conv2d(1, 32, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(32, 64, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
    )


def make_normed_conv_encoder(blocks: int) -> nn.Sequential:
    """Makes blocks of convolution, group norm, ReLU and pooling."""
    layers: list[nn.Module] = []
    for i in range(blocks):
        width, kernel = 6 * 2**i, 3 if i else 5
        layers += [
            nn.Conv2d(width // 2 if i else 1, width, kernel, padding=kernel // 2),
            nn.GroupNorm(math.gcd(8, width), width, eps=EPS),
            nn.ReLU(),
            nn.MaxPool2d(2),
        ]
    return nn.Sequential(*layers, nn.Flatten())


def encode_last_state(network: nn.GRU, x: Tensor, lengths: Tensor) -> Tensor:
    """Returns the last state of each direction, side by side.

    Packing refuses sequences of length 0, which stand for missing ones: they count as 1.
    """
    packed = pack_padded_sequence(x, lengths.clamp(min=1), batch_first=True, enforce_sorted=False)
    return torch.cat(list(network(packed)[1]), dim=1)
