"""ECMNet by the kernels of `engines.kernels`: the folded network, piece by piece, from bytes to labels."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ecmnet_app.core.engines.base import normalisation
from ecmnet_app.core.engines.folded import fold
from ecmnet_app.core.engines.kernels.answer import answer
from ecmnet_app.core.engines.kernels.common import Norm
from ecmnet_app.core.engines.kernels.convolution import Convolution, convolution
from ecmnet_app.core.engines.kernels.downsample import Downsample, downsample
from ecmnet_app.core.engines.kernels.edab_depthwise import EdabDepthwise, edab_depthwise
from ecmnet_app.core.engines.kernels.edab_expand import EdabExpand, edab_expand
from ecmnet_app.core.engines.kernels.edab_reduce import EdabReduce, edab_reduce
from ecmnet_app.core.engines.kernels.ffm import Ffm, look_around, project_in, project_out
from ecmnet_app.core.engines.kernels.msau import Connection, Msau, msau, msau_sums
from ecmnet_app.core.engines.kernels.picture_convolution import PictureConvolution, picture_convolution
from ecmnet_app.core.engines.kernels.upsample import Upsample, upsample_add, upsample_logits
from ecmnet_app.network import ECMNet, ECMNetConfig
from ecmnet_app.network.scan.four_directions import scan_four_directions

__all__ = ["FusedECMNet", "can_fuse"]


def can_fuse(config: ECMNetConfig) -> bool:
    """Whether there is a kernel for every part: for the paper's full network, of any widths, not for its ablations."""
    return config.block == "edab" and config.long_connections == 3 and config.msau and config.ffm


class _Stage(NamedTuple):
    blocks: list[tuple[EdabReduce, EdabDepthwise, EdabExpand]]
    norms: list[Norm]
    """Before each block, and after the last."""

    @classmethod
    def pack(cls, stage: Any, dtype: torch.dtype) -> _Stage:
        *blocks, last = stage
        return cls(
            [(EdabReduce.pack(b, dtype), EdabDepthwise.pack(b), EdabExpand.pack(b, dtype)) for b in blocks],
            [Norm.pack(layer) for layer in (*(b.before for b in blocks), last)],
        )


class _Sums:
    """Zeros for all the sums of one run, handed out piece by piece: one fill, and no kernel between two others."""

    def __init__(self, size: int, device: torch.device) -> None:
        self._free = torch.zeros(size, dtype=torch.int64, device=device)

    def take(self, size: int) -> Tensor:
        taken, self._free = self._free[:size], self._free[size:]
        return taken


class FusedECMNet:
    """The network's function on one device, in `dtype`, with sums and the scan's states in float32.

    Args:
        net: in eval mode, of an architecture that `can_fuse`.
        mean, std: of each RGB channel, on 0 to 1.
        device: a GPU, or the CPU where Triton interprets.
        dtype: of weights and activations.
    """

    def __init__(
        self,
        net: ECMNet,
        mean: tuple[float, float, float],
        std: tuple[float, float, float],
        device: torch.device,
        dtype: torch.dtype = torch.bfloat16,
    ) -> None:
        parts: Any = fold(net).to(device)
        scale, shift = (x.to(device) for x in normalisation(mean, std))
        self.config, self.device, self.dtype = net.config, device, dtype
        self._side = torch.cuda.Stream(device) if device.type == "cuda" else None
        self._left_aside = False
        self._first = PictureConvolution.pack(parts.stem[0], scale, shift, dtype)
        self._stem = [Convolution.pack(layer, dtype) for layer in parts.stem[1:]]
        self._downsamples = [Downsample.pack(layer, dtype) for layer in parts.downsamples]
        self._encoder = [_Stage.pack(stage, dtype) for stage in parts.encoder]
        self._connections = [Connection.pack(layer, dtype) for layer in parts.connections]
        self._msau = Msau.pack(parts.msau, dtype)
        self._from_eighth = [Convolution.pack(parts.ffm.from_eighth, dtype)]
        self._from_quarter = [Convolution.pack(layer, dtype) for layer in parts.ffm.from_quarter]
        self._ffm = Ffm.pack(parts.ffm, dtype)
        self._decoder = [_Stage.pack(stage, dtype) for stage in parts.decoder]
        self._upsamples = [Upsample.pack(layer, dtype) for layer in parts.upsamples]

    @torch.inference_mode()
    def logits(self, pictures: Tensor, large: bool | None = None) -> Tensor:
        """Run the network.

        Args:
            pictures: RGB, uint8, contiguous, on the device. Shape: (B, H, W, 3).
            large: whether tiles are large; by the size of each map by default.

        Returns:
            Float32, channels-last, of which the first num_classes channels are the logits.
            Shape: (B, ceil(H / 2), ceil(W / 2), 16 or more).
        """
        try:
            return self._logits(pictures, large)
        finally:
            self._join()  # where memory ran out: a capture with work left aside cannot be ended

    def _logits(self, pictures: Tensor, large: bool | None) -> Tensor:
        batch, height, width, _ = pictures.shape
        sums = _Sums(self._sums_of(batch, height, width), self.device)

        def run(stage: _Stage, x: Tensor, z: Tensor) -> Tensor:
            for (reduce, depthwise, expand), following in zip(stage.blocks, stage.norms[1:], strict=True):
                up = edab_reduce(z, reduce, large)
                own = sums.take(batch * (up.shape[1] + up.shape[2] + 1) * up.shape[3])
                y = edab_depthwise(up, own, depthwise, large)
                x, z = edab_expand(up, y, x, own, expand, following)
            return z

        def line(x: Tensor, index: int) -> Tensor:
            """The long connection from an encoder stage's output."""
            channels = self.config.decoder_width
            own = sums.take(batch * msau_sums(x.shape[2], channels))
            return msau(x, own, self._connections[2 - index], self._msau, channels, large)

        x = picture_convolution(pictures, self._first, large)
        for layer in self._stem:
            x = convolution(x, layer, large)
        half = x.shape[1:3]
        alive: list[Tensor] = []  # what the side stream reads until it is joined
        finer: list[Tensor] = []  # lines at 1/4 and 1/8, and what the FFM takes of each
        for index, stage in enumerate(self._encoder):
            x = run(stage, *downsample(x, self._downsamples[index], stage.norms[0], large))
            alive.append(x)
            if index < 2:
                with self._aside():
                    finer.append(line(x, index))
                    brought_down = finer[-1]
                    for layer in (self._from_quarter, self._from_eighth)[index]:
                        brought_down = convolution(brought_down, layer, large)
                    finer.append(brought_down)
        quarter_line, quarter, eighth_line, eighth = finer
        self._join()
        with self._aside():
            deepest = line(x, 2)
        value_and_gate = project_in(x, eighth, quarter, self._ffm)
        u, projected = look_around(value_and_gate, self._ffm)
        scanned = scan_four_directions(u, projected, self._ffm.scan, large)
        self._join()
        stage = self._decoder[0]
        x = run(stage, *project_out(scanned, value_and_gate, x, deepest, self._ffm, stage.norms[0], large))
        for long_connection, stage, layer_up in zip(
            (eighth_line, quarter_line), self._decoder[1:], self._upsamples, strict=False
        ):
            x = run(stage, *upsample_add(x, long_connection, layer_up, stage.norms[0]))
        return upsample_logits(x, (half[0], half[1]), self._upsamples[2])

    @contextmanager
    def _aside(self) -> Iterator[None]:
        """Work on what is there by now, beside what follows, until `_join`; what it reads must live until then."""
        if self._side is None:
            yield
            return
        self._side.wait_stream(torch.cuda.current_stream(self.device))
        self._left_aside = True
        with torch.cuda.stream(self._side):
            yield

    def _join(self) -> None:
        if self._side is not None and self._left_aside:
            self._left_aside = False
            torch.cuda.current_stream(self.device).wait_stream(self._side)

    @torch.inference_mode()
    def answer(self, logits: Tensor, size: tuple[int, int], temperature: float) -> tuple[Tensor, Tensor]:
        """`engines.answer_from_logits` of what `logits` returns; the answer stays on the device."""
        return answer(logits, self.config.num_classes, size, temperature)

    def _sums_of(self, batch: int, height: int, width: int) -> int:
        """Whole numbers that all the blocks of a run sum up."""
        total = 0
        for level in (2, 3, 4):  # at 1/4, 1/8, 1/16
            h, w = -(-height // 2**level), -(-width // 2**level)
            for stage in (self._encoder[level - 2], self._decoder[4 - level]):
                total += sum((h + w + 1) * reduce.half for reduce, _, _ in stage.blocks)
            total += msau_sums(w, self.config.decoder_width)
        return batch * total
