"""Which processes of a Ray job have died without being asked to: its actors on every node, and their vLLM engines.

The process that started the job asks Ray's control store; nothing is read from a log. An engine that is a child of its
actor is reported by the actor (`platform/engine_deaths.py`).
"""

import json
from dataclasses import asdict, dataclass

import ray
from ray._private.state import actors
from ray.core.generated.common_pb2 import ActorDiedErrorContext
from ray.experimental import internal_kv

from safer_steer_verl.roles import role_of

NAMESPACE, PREFIX = b"safer_steer", b"death:"
INTENDED = "Worker exit type: INTENDED"  # an actor that ended itself
UNEXPECTED = {ActorDiedErrorContext.Reason.WORKER_DIED, ActorDiedErrorContext.Reason.NODE_DIED}


@dataclass(frozen=True)
class Death:
    """A process that died.

    Attributes:
        role: what it did, in the user's words.
        name: its class or process name.
        pid: its number on its node; 0 where unknown.
        node: its node's address.
        code: its exit status, as of `multiprocessing`; None where it is not known.
        detail: what Ray says of it, where that says more than that it is gone.
    """

    role: str
    name: str
    pid: int
    node: str
    code: int | None = None
    detail: str = ""


def deaths() -> list[Death]:
    """All processes of this job that died so far; the engines first, since their actors may end because of them."""
    return [*_reported(), *_dead_actors()]


def report(death: Death) -> None:
    """Lets the process that started the job know of a death that Ray does not see."""
    key = _prefix() + f"{death.node}:{death.pid}".encode()
    internal_kv._internal_kv_put(key, json.dumps(asdict(death)).encode(), namespace=NAMESPACE)


def _prefix() -> bytes:
    return PREFIX + ray.get_runtime_context().get_job_id().encode() + b":"


def _reported() -> list[Death]:
    keys = internal_kv._internal_kv_list(_prefix(), namespace=NAMESPACE)
    found = [internal_kv._internal_kv_get(key, namespace=NAMESPACE) for key in sorted(keys)]
    return [Death(**json.loads(value)) for value in found if value]


def _dead_actors() -> list[Death]:
    found = []
    job = ray.get_runtime_context().get_job_id()
    for actor in actors(actor_state_name="DEAD").values():
        if actor["JobID"] != job:  # of an earlier run on a cluster that stays
            continue
        cause = actor["DeathCause"]
        kind = cause.WhichOneof("context") if cause is not None else None
        context = getattr(cause, kind) if kind else None
        if kind == "oom_context":  # Ray itself ended it, since the node's memory was nearly full
            detail = " ".join(context.error_message.split())[:300]
        elif (
            kind == "actor_died_error_context"
            and context.reason in UNEXPECTED
            and INTENDED not in context.error_message
        ):
            detail = "its node is gone" if context.reason == ActorDiedErrorContext.Reason.NODE_DIED else ""
            if "SIGTERM" in context.error_message:
                detail = "it was asked to end (SIGTERM)"
        else:
            continue
        name = actor["ActorClassName"].rpartition(".")[2]  # verl makes a class inside a function
        found.append(Death(role_of(name), name, int(actor["Pid"]), actor["Address"]["IPAddress"], detail=detail))
    return found
