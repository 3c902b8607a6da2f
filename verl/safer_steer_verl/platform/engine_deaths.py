"""vLLM's engine in a process of its own: its end is reported with its exit status, at the start too.

vLLM knows that status and keeps it to itself: an engine that is killed while it starts is "Failed core proc(s): {}",
and one that is killed later leaves its actor, and verl, waiting in a socket.
"""

import sys
from multiprocessing import connection
from typing import Any

import ray

from safer_steer_verl.liveness import Death, report

COLLECT_S = 5.0  # until a process that has ended has an exit status


def install() -> None:
    """Where this process holds vLLM's engine manager, lets it report a dead engine."""
    module = sys.modules.get("vllm.v1.engine.utils")
    if module is None or getattr(module.CoreEngineProcManager, "reports", False):
        return
    manager = module.CoreEngineProcManager
    finished_procs, monitor = manager.finished_procs, manager.monitor_engine_liveness

    def finished(self: Any) -> dict[str, int]:
        for process in self.processes:
            if process.pid is not None and connection.wait([process.sentinel], 0):
                process.join(COLLECT_S)
        found = finished_procs(self)
        _report(self, found)
        return found

    def monitored(self: Any) -> None:
        monitor(self)
        if self.failed_proc_name is not None:
            _report(self, {self.failed_proc_name: finished_procs(self).get(self.failed_proc_name)})

    manager.finished_procs, manager.monitor_engine_liveness, manager.reports = finished, monitored, True


def _report(manager: Any, ended: dict[str, int | None]) -> None:
    node = ray.util.get_node_ip_address()
    for process in manager.processes:
        if ended.get(process.name, 0) != 0:
            report(Death("rollout engine", process.name, process.pid or 0, node, ended[process.name]))
