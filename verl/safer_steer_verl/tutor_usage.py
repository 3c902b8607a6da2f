"""What the tutor has cost so far, from the totals that each agent-loop worker's client sends with its trajectories."""

from collections.abc import Iterable
from typing import Any

from safer_steer_verl.trajectory import TrajectoryRecord


class TutorUsage:
    """The tutor's calls and tokens: each worker's client reports its running totals with every trajectory."""

    def __init__(self) -> None:
        self._workers: dict[str, dict[str, Any]] = {}

    def take(self, records: Iterable[TrajectoryRecord]) -> dict[str, float]:
        """Takes in the totals that came with trajectories; returns calls so far, and what was added since last time."""
        before = self._totals()
        for record in records:
            if record.tutor_usage:
                worker, stats = record.tutor_usage["worker"], record.tutor_usage["stats"]
                if stats["calls"] >= self._workers.get(worker, {}).get("calls", 0):
                    self._workers[worker] = stats
        after = self._totals()
        added = {f"tutor/step_{name}": after[name] - before[name] for name in after}
        return added | {"tutor/calls": after["calls"]}

    def by_worker(self) -> dict[str, dict[str, Any]]:
        """The totals of every worker."""
        return dict(self._workers)

    def _totals(self) -> dict[str, float]:
        names = ("calls", "retries", "tokens_in", "tokens_out")
        return {name: sum(stats.get(name, 0) for stats in self._workers.values()) for name in names}
