"""The one exception tree. It imports nothing, so every layer can raise from it.

    EcmnetError
    ├── ImageError      a picture, mask or frame cannot be read, or is not a picture we can segment
    ├── VideoError      a video cannot be read or written
    ├── BagError        a recording of ROS messages cannot be read or written
    ├── WeightsError    a weights file is missing, damaged, or does not fit its JSON
    ├── DeviceError     the device or engine asked for is not there, or ran out of memory
    ├── ConfigError     a setting has a value that cannot work
    ├── DataError       a data set's folders or labels are not as they should be
    └── StreamError     a live source sent something that cannot be answered, or the worker was closed

Every message says what was wrong and what to do about it: it is shown to people as it stands.
"""

from __future__ import annotations

__all__ = [
    "BagError",
    "ConfigError",
    "DataError",
    "DeviceError",
    "EcmnetError",
    "ImageError",
    "StreamError",
    "VideoError",
    "WeightsError",
]


class EcmnetError(Exception):
    """Base of every error this project raises on purpose."""


class ImageError(EcmnetError):
    """A picture, mask or frame cannot be read or segmented."""


class VideoError(EcmnetError):
    """A video cannot be read or written."""


class BagError(EcmnetError):
    """A recording of ROS messages cannot be read or written."""


class WeightsError(EcmnetError):
    """A weights file is missing, damaged, or does not fit its JSON."""


class DeviceError(EcmnetError):
    """The device or engine asked for is not there, or failed."""


class ConfigError(EcmnetError):
    """A setting has a value that cannot work."""


class DataError(EcmnetError):
    """A data set's folders or labels are not as they should be."""


class StreamError(EcmnetError):
    """A live source sent something that cannot be answered, or its worker was closed."""
