"""A keyword spotter without any cache: convolutions, then a small classifier. Every call stands for itself."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Plain(nn.Module):
    """Classifies a stretch of features, batch time feature, of fixed length."""

    def __init__(self, frames: int = 25, features: int = 18, words: int = 11) -> None:
        super().__init__()
        self.frames, self.features = frames, features
        self.convolutions = nn.Sequential(nn.Conv1d(features, 16, 5, 2), nn.ReLU(), nn.Conv1d(16, 16, 3, 2), nn.ReLU())
        self.classifier = nn.Sequential(nn.Linear(16 * 5, 24), nn.ReLU(), nn.Linear(24, words))

    def forward(self, x: Tensor) -> Tensor:
        """Scores every word."""
        scores: Tensor = self.classifier(self.convolutions(x.transpose(1, 2)).flatten(1))
        return scores


def make_plain(seed: int = 23) -> Plain:
    """Builds a spotter with random weights."""
    torch.manual_seed(seed)
    return Plain().eval().requires_grad_(False)
