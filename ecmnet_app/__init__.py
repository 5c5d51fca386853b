"""ECMNet App: ECMNet (arXiv 2506.08629) street segmentation for the browser, the shell and the robot.

The public names load on first use, so that `import ecmnet_app` does not wait for torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ecmnet_app.core import LabelSet, Segmentation, Segmenter
    from ecmnet_app.network import ECMNet, ECMNetConfig

    __version__: str

__all__ = ["ECMNet", "ECMNetConfig", "LabelSet", "Segmentation", "Segmenter", "__version__"]

_HOMES = {
    "ECMNet": "ecmnet_app.network",
    "ECMNetConfig": "ecmnet_app.network",
    "LabelSet": "ecmnet_app.core",
    "Segmentation": "ecmnet_app.core",
    "Segmenter": "ecmnet_app.core",
}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("ecmnet-app")
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
