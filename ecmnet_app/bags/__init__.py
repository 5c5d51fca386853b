"""Recordings of robots in, recordings of masks out; no ROS needed. The work of `ecmnet bag`.

    for job in find_bags(["drives/*.mcap"], Path("masks"))[0]:
        summary = segment_bag(job, BagSettings(), segmenter)

A bag's time is cut into parts of `PART_SECONDS`. Which of them are done together, by which process and in which order,
makes no difference to the bytes that come out:

    plan = prepare_bag(job, settings, segmenter)                      # once, before the others
    segment_parts(job, settings, segmenter, 0, plan.parts // 2)       # here
    segment_parts(job, settings, segmenter, plan.parts // 2)          # there
    summary = assemble_bag(job)                                       # once, after the others
"""

from ecmnet_app.bags.assemble import assemble_bag
from ecmnet_app.bags.jobs import BagJob, BagSettings, find_bags
from ecmnet_app.bags.segment import PART_SECONDS, BagPlan, prepare_bag, segment_bag, segment_parts
from ecmnet_app.bags.summary import BagSummary, Gap, TopicSummary

__all__ = [
    "PART_SECONDS",
    "BagJob",
    "BagPlan",
    "BagSettings",
    "BagSummary",
    "Gap",
    "TopicSummary",
    "assemble_bag",
    "find_bags",
    "prepare_bag",
    "segment_bag",
    "segment_parts",
]
