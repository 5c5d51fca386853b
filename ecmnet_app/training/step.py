"""One training step: forward, backward, optimiser and average; fused and recorded as one CUDA graph on a GPU."""

from __future__ import annotations

from copy import deepcopy

import torch
from torch import Tensor, nn

from ecmnet_app.errors import WeightsError
from ecmnet_app.network import ECMNet
from ecmnet_app.training import distributed
from ecmnet_app.training.flat import FlatParameters
from ecmnet_app.training.losses import distillation_loss, segmentation_loss
from ecmnet_app.training.recipe import Recipe
from ecmnet_app.training.stochastic_depth import drop_blocks
from ecmnet_app.training.teacher import Teacher, TeacherTrainee

__all__ = ["TrainStep", "Trainee"]


class Trainee(nn.Module):
    """The network with its auxiliary heads, which training drops at the end."""

    def __init__(self, network: ECMNet) -> None:
        super().__init__()
        self.network = network
        _, eighth, sixteenth = network.config.widths
        self.heads = nn.ModuleList(nn.Conv2d(w, network.config.num_classes, 1) for w in (eighth, sixteenth))

    def forward(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Pictures (B, 3, H, W) -> logits at half resolution, and the heads' at 1/8 and 1/16."""
        half, stages = self.network.encode(x)
        logits = self.network.classifier(self.network.decode(half, stages))
        return logits, [head(stage) for head, stage in zip(self.heads, stages[1:], strict=True)]


class TrainStep:
    """Owns the network in training, its optimiser and its moving average.

    Args:
        trainee: on its device; its forward gives logits at half resolution and a list of auxiliary logits,
            its `network` is averaged and saved. Its parameters become views (see `FlatParameters`).
        recipe: settings.
        weights: (K,) class weights.
        fused: on a GPU and in one process, run the blocks by fused kernels and replay the whole step as one
            CUDA graph; two minutes at the start.
        teacher: gives logits at half resolution, which the trainee's shall resemble; None where each batch brings a
            teacher's answers along, or none is wanted.
    """

    def __init__(
        self,
        trainee: Trainee | TeacherTrainee,
        recipe: Recipe,
        weights: Tensor,
        fused: bool = False,
        teacher: nn.Module | None = None,
    ) -> None:
        self.recipe = recipe
        self.trainee = trainee.train()
        self.device = next(trainee.parameters()).device
        self.teacher = teacher
        if distributed.world_size() > 1:
            distributed.synchronise(self.trainee)
        self.average: ECMNet | Teacher = deepcopy(
            trainee.network
        )  # its parameters follow at a distance, its buffers are copied
        if recipe.stochastic_depth:
            drop_blocks(self.trainee, recipe.stochastic_depth)
        self.flat = FlatParameters(self.trainee)
        self.flat_average = [v.detach().clone() for v in self.flat.vectors]
        self.weights = weights.to(self.device)
        on_gpu = self.device.type == "cuda"
        self.optimiser = torch.optim.AdamW(
            [
                {"params": [self.flat.vectors[0]], "weight_decay": recipe.weight_decay},
                {"params": [self.flat.vectors[1]], "weight_decay": 0.0},
            ],
            lr=torch.zeros((), device=self.device) if on_gpu else 0.0,
            fused=on_gpu,
            capturable=on_gpu,
        )
        self.average_rate = torch.zeros((), device=self.device)
        self.loss_function = segmentation_loss
        self.reduce = distributed.sum_over_processes if distributed.world_size() > 1 else _alone
        self.captures = fused and on_gpu and distributed.world_size() == 1
        self.graph: torch.cuda.CUDAGraph | None = None
        if self.captures:
            self._fuse()

    def _fuse(self) -> None:
        from ecmnet_app.training.fused import fuse  # needs Triton, which comes with torch for GPUs alone

        torch.backends.cudnn.benchmark = True
        fuse(self.trainee)
        self.loss_function = torch.compile(segmentation_loss, dynamic=False)

    def __call__(self, images: Tensor, target: Tensor, step: int, answers: Tensor | None = None) -> Tensor:
        """Train on one batch.

        Args:
            images: (B, 3, H, W) float32, normalised.
            target: (B, H, W) int64, as `segmentation_loss` takes it.
            step: from 0; sets the learning rate and the average's rate.
            answers: what a teacher answered, as in `Views`; with each batch or with none.

        Returns:
            The loss, a scalar on the device; read it seldom, since reading waits for the device.
        """
        self._schedule(step)
        images = images.contiguous(memory_format=torch.channels_last)
        if not self.captures:
            return self._run(images, target, answers)
        if self.graph is None:
            return self._capture(images, target, answers)
        self._images.copy_(images)
        self._target.copy_(target)
        if self._answers is not None and answers is not None:
            self._answers.copy_(answers)
        self.graph.replay()
        return self._loss

    def _schedule(self, step: int) -> None:
        recipe = self.recipe
        warm = min(1.0, (1 + 2 * step / recipe.warmup_steps) / 3) if recipe.warmup_steps else 1.0
        rate = recipe.learning_rate * warm * (1 - step / recipe.steps) ** recipe.poly_power
        for group in self.optimiser.param_groups:
            if isinstance(group["lr"], Tensor):
                group["lr"].fill_(rate)
            else:
                group["lr"] = rate
        # Early averages forget faster, so that they do not remember the initialisation.
        self.average_rate.fill_(1 - min(recipe.ema_decay, (1 + step) / (10 + step)))

    def _run(self, images: Tensor, target: Tensor, answers: Tensor | None) -> Tensor:
        bf16 = self.device.type == "cuda"
        with torch.autocast(self.device.type, torch.bfloat16, enabled=bf16, cache_enabled=False):
            logits, auxiliary = self.trainee(images)
        loss = self.loss_function(
            logits,
            auxiliary,
            target,
            self.weights,
            self.recipe.jaccard_weight,
            self.recipe.auxiliary_weights,
            self.recipe.unnamed,
            self.reduce,
            self.recipe.boundary_weight,
        )
        if self.teacher is not None:
            with torch.no_grad(), torch.autocast(self.device.type, torch.bfloat16, enabled=bf16, cache_enabled=False):
                wanted, share = self.teacher(images), None
        elif answers is not None:
            # Probabilities come in steps of 1/255: the least that is not one of them stands for none.
            wanted, share = answers.clamp_min(0.5 / 255).log(), answers.sum(1)
        else:
            wanted = share = None
        if wanted is not None:
            resemblance = distillation_loss(logits, wanted, self.recipe.teacher_temperature, self.reduce, share)
            loss = loss + self.recipe.teacher_weight * resemblance
        self.flat.set_gradients(torch.autograd.grad(loss, self.flat.parameters))
        gradients = [vector.grad for vector in self.flat.vectors if vector.grad is not None]
        for gradient in gradients:
            distributed.average(gradient)
        norm = torch.sqrt(sum((g.square().sum() for g in gradients), start=torch.zeros((), device=self.device)))
        for gradient in gradients:
            gradient.mul_((self.recipe.clip_norm / (norm + 1e-6)).clamp_max(1))
        self.optimiser.step()
        for mean, vector in zip(self.flat_average, self.flat.vectors, strict=True):
            mean.lerp_(vector.detach(), self.average_rate)
        return loss.detach()

    def _capture(self, images: Tensor, target: Tensor, answers: Tensor | None) -> Tensor:
        """Run this step on a side stream, as graphs ask, then record one that replays ever after."""
        self._images, self._target = images.clone(), target.clone()
        self._answers = None if answers is None else answers.clone()
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            first = self._run(self._images, self._target, self._answers)
        torch.cuda.current_stream().wait_stream(stream)
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph):
            self._loss = self._run(self._images, self._target, self._answers)
        return first

    def averaged_network(self) -> ECMNet | Teacher:
        """The network with averaged parameters and the running statistics of the one in training."""
        network = self.trainee.network
        averaged = dict(zip(self.flat.parameters, self.flat.views(self.flat_average), strict=True))
        with torch.no_grad():
            for mean, live in zip(self.average.parameters(), network.parameters(), strict=True):
                mean.copy_(averaged[live])
            for mine, theirs in zip(self.average.buffers(), network.buffers(), strict=True):
                mine.copy_(theirs)
        return self.average.eval()

    def state(self) -> dict[str, Tensor]:
        """Everything that the next step depends on, for a checkpoint."""
        state = {f"network.{name}": buffer for name, buffer in self.trainee.named_buffers()}
        for i, (vector, mean) in enumerate(zip(self.flat.vectors, self.flat_average, strict=True)):
            state[f"vector.{i}"] = vector.detach()
            state[f"average.{i}"] = mean
            for name, value in self.optimiser.state[vector].items():
                state[f"optimiser.{i}.{name}"] = value
        return state

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Continue from `state`'s tensors, in place.

        Raises:
            WeightsError: they are of another network.
        """
        for name, mine in self.state().items():
            if name not in state or state[name].shape != mine.shape:
                raise WeightsError(
                    f"the checkpoint is of another network ({name} differs): start in another folder, without --resume"
                )
        buffers = dict(self.trainee.named_buffers())
        with torch.no_grad():
            for name, buffer in buffers.items():
                buffer.copy_(state[f"network.{name}"])
            for i, (vector, mean) in enumerate(zip(self.flat.vectors, self.flat_average, strict=True)):
                vector.detach().copy_(state[f"vector.{i}"])
                mean.copy_(state[f"average.{i}"])
                prefix = f"optimiser.{i}."
                self.optimiser.state[vector] = {
                    key.removeprefix(prefix): value.to(self.device, copy=True)
                    for key, value in state.items()
                    if key.startswith(prefix)
                }


def _alone(t: Tensor) -> Tensor:
    """The sum over one process, without a look at the process group that a compiler would have to trace."""
    return t
