"""Muon for the hidden matrices and AdamW for everything else, as one optimizer (`tune.optimizer: muon`).

Muon (Jordan et al. 2024) makes each update of a matrix orthogonal; it needs fewer tokens for the same loss, and is not
meant for embeddings, the head, norms and biases. Scaled to AdamW's usual update size (Liu et al. 2025), one learning
rate serves both.

Covered: parameters, state that saves and loads like any optimizer's. Not covered: the schedule (transformers).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.optim import AdamW, Muon, Optimizer

BETAS = (0.9, 0.95)


class MuonAdamW(Optimizer):
    """Group 0 is Muon's, the others are AdamW's; all of them and the whole state lie here, where they are saved."""

    def __init__(self, model: nn.Module, learning_rate: float, weight_decay: float) -> None:
        apart = {id(m.weight) for m in model.modules() if isinstance(m, nn.Embedding)}
        head = getattr(model, "get_output_embeddings", lambda: None)()
        apart |= {id(head.weight)} if head is not None else set()
        trained = [p for p in model.parameters() if p.requires_grad]
        matrices = [p for p in trained if p.ndim == 2]
        tables = [p for p in matrices if id(p) in apart]
        vectors = [p for p in trained if p.ndim != 2]
        self.muon = Muon(
            [p for p in matrices if id(p) not in apart],
            lr=learning_rate,
            weight_decay=weight_decay,
            adjust_lr_fn="match_rms_adamw",
        )
        groups = [{"params": tables, "weight_decay": weight_decay}, {"params": vectors, "weight_decay": 0.0}]
        self.adamw = AdamW([g for g in groups if g["params"]], lr=learning_rate, betas=BETAS, fused=True)
        super().__init__([*self.muon.param_groups, *self.adamw.param_groups], {})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """One update of both. Loading replaces groups and state, so the parts are given them each time."""
        if closure is not None:
            raise NotImplementedError("muon takes no closure")
        for part, groups in ((self.muon, self.param_groups[:1]), (self.adamw, self.param_groups[1:])):
            part.param_groups, part.state = groups, self.state
            part.step()
