"""Checkpoints of a training: tensors and a JSON header in one safetensors file, written whole or not at all."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from ecmnet_app.errors import WeightsError
from ecmnet_app.media.files import write_atomically

__all__ = ["load_checkpoint", "save_checkpoint"]


def save_checkpoint(path: Path, tensors: dict[str, Tensor], header: dict[str, Any]) -> None:
    """Write tensors and a header of JSON types; a crash midway leaves the checkpoint before it.

    Raises:
        WeightsError: the file cannot be written.
    """
    plain = {name: t.detach().contiguous().cpu() for name, t in tensors.items()}
    try:
        write_atomically(path, save(plain, {"header": json.dumps(header)}))
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"cannot write {path} ({error}): free some space, then go on with --resume") from error


def load_checkpoint(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read what `save_checkpoint` wrote, on the CPU.

    Raises:
        WeightsError: the file is missing, damaged or of another kind.
    """
    try:
        with safe_open(path, framework="pt") as file:
            header = json.loads((file.metadata() or {})["header"])
            if not isinstance(header, dict):
                raise KeyError("header")
            return {name: file.get_tensor(name) for name in file.keys()}, header  # noqa: SIM118
    except FileNotFoundError:
        raise WeightsError(f"there is no checkpoint {path}: start without --resume") from None
    except (SafetensorError, KeyError, json.JSONDecodeError, OSError) as error:
        raise WeightsError(
            f"{path} is not a checkpoint of this program ({error}): start in another folder, without --resume"
        ) from error
