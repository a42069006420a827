"""One step of a training: the derivatives of the loss of a batch, and the change of the weights."""

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from so3k_md.data import to_targets
from so3k_md.data.batches import chunks
from so3k_md.model.forces import evaluate
from so3k_md.model.weights import file_name
from so3k_md.train.loss import entries, errors, weighted_loss
from so3k_md.train.parallel import World
from so3k_md.train.run import Run
from so3k_md.train.stopping import Request


def take_step(run: Run, chunk: Sequence[int], request: Request) -> tuple[float, bool]:
    """Change the weights by a batch; returns its loss, nan if a derivative is so, and whether to stop."""
    settings = run.config.train
    most_pairs = settings.most_pairs or math.inf
    parts = list(chunks(run.train_set, math.inf, run.world.share(chunk), most_pairs))
    counts = None
    if len(parts) != 1 or run.world.size > 1:
        counts = entries(to_targets([run.train_set.frames[index] for index in chunk]))
    weights = [weight for weight in run.model.parameters() if weight.requires_grad]
    run.optimizer.zero_grad()
    value = 0.0
    for part in parts:
        graph, targets = run.train_set.batch(part).to(run.device)
        evaluation = evaluate(run.model, graph, len(targets.energy), differentiable=True)
        loss = weighted_loss(errors(evaluation, graph, targets), run.config.loss, run.per_atom, counts)
        loss.backward(inputs=weights)
        value += float(loss.detach())
    value, stop = run.world.sum(derivatives(weights, run.world), value, float(request.made))
    norm = float(torch.nn.utils.clip_grad_norm_(weights, settings.clip_norm))
    if math.isfinite(value) and math.isfinite(norm):
        run.optimizer.step()
        return value, stop > 0
    return value if math.isfinite(norm) else math.nan, stop > 0


def suspect(run: Run, chunk: Sequence[int]) -> str:
    """What may have made the loss of a batch infinite: weights, or the frame with the largest loss."""
    for name, weight in run.model.named_parameters():
        if not bool(torch.isfinite(weight).all()):
            return f"weights are no longer finite ({file_name(name)})"
    losses = []
    for index in chunk:
        graph, targets = run.train_set.batch([index]).to(run.device)
        found = errors(evaluate(run.model, graph, 1), graph, targets)
        losses.append(float(weighted_loss(found, run.config.loss, run.per_atom)))
    worst = int(np.argmax([math.inf if math.isnan(loss) else loss for loss in losses]))
    frame = run.train_set.frames[chunk[worst]]
    return f"the largest loss of its frames, {losses[worst]:.3g}, is that of {frame.where}"


def derivatives(weights: Sequence[Tensor], processes: World) -> list[Tensor]:
    """The derivatives by weights; among several processes zeros for those that a process has none of."""
    for weight in weights if processes.size > 1 else ():
        if weight.grad is None:
            weight.grad = torch.zeros_like(weight)
    return [weight.grad for weight in weights if weight.grad is not None]
