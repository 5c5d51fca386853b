"""Reading and writing pictures, with one error type for bad input."""

from ecmnet_app.media.images import MAX_PIXELS, check_image, read_image, write_image, write_mask

__all__ = ["MAX_PIXELS", "check_image", "read_image", "write_image", "write_mask"]
