"""Write the clip as a ROS 2 bag: JPEG pictures and the camera that took them, in one MCAP file.

    python assets/make_bag.py                # assets/street.mcap, from the shipped clip
    ros2 bag play assets/street.mcap

Needs assets/requirements.txt, neither ROS nor the project.
"""

from __future__ import annotations

import argparse
import io
import math
import shutil
import tempfile
from pathlib import Path

import av
import numpy as np
from clip import CLIP, FOV, RATE, SIZE
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore

BAG = Path(__file__).resolve().parent / "street.mcap"
EPOCH = 1767225600  # seconds: the start of 2026, so that two runs write one bag
FRAME_ID = "camera_optical_frame"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=BAG, help="default: %(default)s")
    parser.add_argument("--quality", type=int, default=80, help="of the JPEG pictures (default: %(default)s)")
    args = parser.parse_args()

    types = get_typestore(Stores.ROS2_HUMBLE)  # the oldest that is supported; these messages are the same in all
    header, stamp = types.types["std_msgs/msg/Header"], types.types["builtin_interfaces/msg/Time"]
    picture_type, info_type = "sensor_msgs/msg/CompressedImage", "sensor_msgs/msg/CameraInfo"
    roi = types.types["sensor_msgs/msg/RegionOfInterest"](0, 0, 0, 0, False)
    width, height = SIZE
    focal = width / 2 / math.tan(math.radians(FOV) / 2)  # pixels
    x, y = (width - 1) / 2, (height - 1) / 2  # ROS puts whole coordinates at the centres of pixels
    k = np.array([focal, 0, x, 0, focal, y, 0, 0, 1])
    p = np.insert(k.reshape(3, 3), 3, 0, axis=1).ravel()

    with tempfile.TemporaryDirectory() as folder, av.open(str(CLIP)) as clip:
        bag = Path(folder) / "street"
        with Writer(bag, version=Writer.VERSION_LATEST, storage_plugin=StoragePlugin.MCAP) as writer:
            pictures = writer.add_connection("/camera/image_raw/compressed", picture_type, typestore=types)
            infos = writer.add_connection("/camera/camera_info", info_type, typestore=types)
            for index, frame in enumerate(clip.decode(video=0)):
                nanoseconds = index * 10**9 // RATE
                time = stamp(EPOCH + nanoseconds // 10**9, nanoseconds % 10**9)
                at, head = EPOCH * 10**9 + nanoseconds, header(time, FRAME_ID)
                jpeg = io.BytesIO()
                frame.to_image().save(jpeg, "JPEG", quality=args.quality, optimize=True)
                data = np.frombuffer(jpeg.getvalue(), np.uint8)
                info = types.types[info_type](
                    head, height, width, "plumb_bob", np.zeros(5), k, np.eye(3).ravel(), p, 0, 0, roi
                )
                writer.write(infos, at, types.serialize_cdr(info, info_type))
                message = types.types[picture_type](head, "jpeg", data)
                writer.write(pictures, at, types.serialize_cdr(message, picture_type))
        shutil.move(next(bag.glob("*.mcap")), args.out)
    print(f"{args.out}: {args.out.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
