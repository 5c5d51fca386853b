"""The robot's door to ECMNet: pictures of any number of cameras in; masks, confidence and class names out.

`segment_node`, `camera`, `points`, `qos` and `spinning` speak ROS; `camera_node` publishes a camera of this machine,
`bag` looks into a bag, `web` shows on a page what the robot sees. The rest needs no ROS and is tested without it:
`names`, `settings`, `health`, `silence`, `sizes`, `cloud`, and `decoder` where cv_bridge is missing.
"""
