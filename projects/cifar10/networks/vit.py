"""A vision transformer: Dosovitskiy et al. 2021, "An Image is Worth 16×16 Words" (arXiv 2010.11929), in the tiny size
of Touvron et al. 2021 (arXiv 2012.12877): width 192, 12 blocks, 3 heads; 5.7 million weights with patches of 16 pixels
of 224×224 images. Here patches have 4 pixels, and the mean of all tokens takes the place of a class token (Beyer, Zhai
and Kolesnikov 2022, arXiv 2205.01580).
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class VisionTransformer(nn.Module):
    """Patches of the image as tokens with learned positions, then blocks of attention and two linear layers.

    patch: side of a patch in pixels. grid: patches along a side; for other sizes the positions are interpolated.
    """

    def __init__(self, num_classes: int, patch: int = 4, grid: int = 8, width: int = 192, blocks: int = 12) -> None:
        super().__init__()
        self.embed = nn.Conv2d(3, width, patch, stride=patch)
        self.positions = nn.Parameter(0.02 * torch.randn(1, width, grid, grid))
        self.blocks = nn.Sequential(*(Block(width, heads=width // 64) for _ in range(blocks)))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Logits."""
        x = self.embed(images)
        x = x + F.interpolate(self.positions, size=x.shape[2:], mode="bilinear")
        tokens = self.norm(self.blocks(x.flatten(2).transpose(1, 2)))
        logits: Tensor = self.head(tokens.mean(1))
        return logits


class Block(nn.Module):
    """Attention of every token to all, then two linear layers a token; before both a norm, round both a shortcut."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.queries_keys_values, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.linear1, self.linear2 = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        """[N, tokens, width] → [N, tokens, width]."""
        parts = self.queries_keys_values(self.norm1(x)).reshape(x.shape[0], x.shape[1], 3, self.heads, -1)
        parts = parts.permute(2, 0, 3, 1, 4)  # [3, N, heads, tokens, width / heads]
        y = F.scaled_dot_product_attention(parts[0], parts[1], parts[2])
        x = x + self.out(y.transpose(1, 2).flatten(2))
        tokens: Tensor = x + self.linear2(F.gelu(self.linear1(self.norm2(x))))
        return tokens
