"""The robot's door to ECMNet: pictures of any number of cameras in; masks, confidence and class names out.

`segment_node` and `camera` speak ROS; `camera_node` publishes a camera of its own, `bag` looks into a bag, `web` shows
on a page what the robot sees. The rest needs no ROS and is tested without it: `names`, `settings`, `health`, `silence`,
`sizes`, `cloud`.
"""
