"""The network of the paper, in pure torch: no files, no devices, nothing else of this project."""

from .config import TABLE_1, ECMNetConfig
from .ecmnet import MIN_SIZE, ECMNet

__all__ = ["MIN_SIZE", "TABLE_1", "ECMNet", "ECMNetConfig"]
