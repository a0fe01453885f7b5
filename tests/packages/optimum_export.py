"""Writes a transformers network with random weights as ONNX, as Optimum exports it: run by `groups.run`.

python optimum_export.py FOLDER TASK '{"model_type": "gpt2", ...}'
"""

from __future__ import annotations

import functools
import json
import sys
from pathlib import Path

import torch
from optimum.exporters.onnx import onnx_export_from_model
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoModelForSpeechSeq2Seq

LOADERS = {
    "text-generation-with-past": AutoModelForCausalLM,
    "text2text-generation-with-past": AutoModelForSeq2SeqLM,
    "automatic-speech-recognition-with-past": AutoModelForSpeechSeq2Seq,
}


def export(folder: Path, task: str, settings: dict[str, object]) -> None:
    torch.manual_seed(0)
    config = AutoConfig.for_model(**settings)
    network = LOADERS[task].from_config(config).eval()
    # A fresh network is nearly linear: caches shall have a say in what it puts out.
    with torch.no_grad():
        for weights in network.parameters():
            if weights.dim() > 1:
                weights.normal_(0, weights.shape[-1] ** -0.5)
    # Optimum of 2024 knows no exporter but the one that traces, which was PyTorch's default then.
    torch.onnx.export = functools.partial(torch.onnx.export, dynamo=False)
    onnx_export_from_model(network, folder, task=task, do_validation=False)


if __name__ == "__main__":
    export(Path(sys.argv[1]), sys.argv[2], json.loads(sys.argv[3]))
