"""A voice activity detector in the manner of Silero's: two convolutions, one LSTM, one probability for each call.

Arrays, in the project's layout language:
    audio: batch sample, float32
    hidden, cell: layer batch dim, float32, with one layer
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Sizes:
    """The sizes of one detector."""

    samples: int = 256
    channels: int = 12
    width: int = 18


class Vad(nn.Module):
    """All weights: one instance is exported under every convention."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.sizes = sizes
        self.encoder = nn.Sequential(
            nn.Conv1d(1, sizes.channels, 32, 16), nn.ReLU(), nn.Conv1d(sizes.channels, sizes.channels, 3, 2), nn.ReLU()
        )
        self.recurrent = nn.LSTM(sizes.channels, sizes.width, batch_first=True)
        self.decoder = nn.Linear(sizes.width, 1)

    def detect(self, audio: Tensor, hidden: Tensor, cell: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Gives the probability of speech at the end of the audio, batch 1, and both new states."""
        frames = self.encoder(audio.unsqueeze(1)).transpose(1, 2)
        frames, (new_hidden, new_cell) = self.recurrent(frames, (hidden, cell))
        return self.decoder(frames[:, -1]).sigmoid(), new_hidden, new_cell


class StateVad(nn.Module):
    """`state: hc batch dim`: taken apart at the start and stacked at the end, as Silero's version 5 does."""

    def __init__(self, vad: Vad) -> None:
        super().__init__()
        self.vad = vad

    def forward(self, audio: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """Advances one stretch of audio."""
        probability, hidden, cell = self.vad.detect(audio, state[0].unsqueeze(0), state[1].unsqueeze(0))
        return probability, torch.stack((hidden.squeeze(0), cell.squeeze(0)))


class HiddenCellVad(nn.Module):
    """`h`, `c`: layer batch dim, as Silero's versions before 5 have them."""

    def __init__(self, vad: Vad) -> None:
        super().__init__()
        self.vad = vad

    def forward(self, audio: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Advances one stretch of audio."""
        return self.vad.detect(audio, h, c)


def make_vad(sizes: Sizes, seed: int = 22) -> Vad:
    """Builds a detector with random weights."""
    torch.manual_seed(seed)
    vad = Vad(sizes)
    # As initialized, the probability would hardly leave one half.
    nn.init.normal_(vad.decoder.weight, std=2.0)
    return vad.eval().requires_grad_(False)
