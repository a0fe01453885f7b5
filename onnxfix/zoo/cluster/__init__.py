"""Migrations on more than one machine, by Dask: whoever coordinates keeps the journal, workers only work on models."""

from __future__ import annotations

from onnxfix.zoo.cluster.run import run_in_cluster

__all__ = ["run_in_cluster"]
