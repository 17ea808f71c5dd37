"""How the server's learning rate follows the version. A file a member; ``SCHEDULES`` names them."""

from aggregation.schedules.shape import Schedule, ScheduleParameters
from aggregation.schedules.table import SCHEDULES, rate_after, schedule_named

__all__ = ["SCHEDULES", "Schedule", "ScheduleParameters", "rate_after", "schedule_named"]
