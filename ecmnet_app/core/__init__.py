"""The shared inference core: frame in, segmentation out. Nothing here knows who called it."""

from ecmnet_app.core.labels import CAMVID, CITYSCAPES, UNLABELLED, Label, LabelSet
from ecmnet_app.core.segmentation import Segmentation
from ecmnet_app.core.segmenter import Segmenter
from ecmnet_app.core.weights import DEFAULT_WEIGHTS, Weights, available_weights, load_weights, save_weights

__all__ = [
    "CAMVID",
    "CITYSCAPES",
    "DEFAULT_WEIGHTS",
    "UNLABELLED",
    "Label",
    "LabelSet",
    "Segmentation",
    "Segmenter",
    "Weights",
    "available_weights",
    "load_weights",
    "save_weights",
]
