"""ViT beside BERT in PyTorch, of the modules of transformers."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from transformers import BertConfig, BertModel, ViTConfig, ViTModel

from mmjax.types import Batch


class TwoTowers(nn.Module):
    """ViT-S's class token beside the mean of MiniLM's tokens, and a linear head per task.

    Args:
      tasks: names of the tasks, of 10 classes each.
      pixels: side of the images.
      width: of the tokens of both towers.
      hidden: width of the MLPs' hidden layers.
      frozen: whether only the heads train.
    """

    def __init__(
        self, tasks: Sequence[str], pixels: int, width: int, hidden: int, *, frozen: bool
    ) -> None:
        super().__init__()
        size = {"hidden_size": width, "intermediate_size": hidden}
        rates = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
        vit = ViTConfig(num_attention_heads=6, image_size=pixels, **size, **rates)
        bert = BertConfig(num_hidden_layers=6, **size, **rates)
        self.image = ViTModel(vit, add_pooling_layer=False)
        self.text = BertModel(bert, add_pooling_layer=False)
        self.heads = nn.ModuleDict({task: nn.Linear(2 * width, 10) for task in tasks})
        self.frozen = frozen
        for tower in (self.image, self.text):
            tower.requires_grad_(not frozen)

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Returns the logits."""
        with torch.set_grad_enabled(not self.frozen and torch.is_grad_enabled()):
            features = self.encode(batch)
        return {task: head(features) for task, head in self.heads.items()}

    def encode(self, batch: Batch) -> Tensor:
        """Returns the features of both towers, side by side."""
        pixels, tokens = batch.inputs["image"], batch.inputs["text"]
        image = self.image(pixel_values=(pixels - 0.5) / 0.5).last_hidden_state[:, 0]
        length = batch.lengths["text"].to(tokens.device)
        mask = torch.arange(tokens.shape[1], device=tokens.device) < length[:, None]
        text = self.text(input_ids=tokens, attention_mask=mask.long()).last_hidden_state
        mean = (text * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
        return torch.cat([image, mean], dim=1)
