"""Ray for one run: verl's options, started lean and tried again, or a cluster that was named (`ray_init.address`)."""

import contextlib
import os
import secrets
import time
from typing import Any

import psutil
import ray
from omegaconf import DictConfig, OmegaConf
from ray._private.node import Node

from safer_steer.errors import UserError
from safer_steer_verl.beats import FOLDER
from safer_steer_verl.platform import GROUP_TIMEOUT

ATTEMPTS = 12  # Ray gives its own helpers 15 s to start, too few on a busy machine
PAUSE_S = 5.0
CPUS_PER_GPU, CPUS_BESIDES = 3, 2  # what verl asks Ray for; without them it would wait for ever, and say nothing
JOIN_S = 300.0  # nodes of a batch job start minutes apart
QUEUE = {"name": "TransferQueueController", "namespace": "transfer_queue"}  # the actor that holds a run's trajectories
ENDING_S = 30.0  # a run that ended just now leaves the cluster within seconds
LOCAL = "local"  # Ray's word for a cluster of one's own
OF_A_NEW_CLUSTER = ("num_cpus", "num_gpus", "object_store_memory", "include_dashboard")


def start_ray(config: DictConfig) -> None:
    """Starts (or joins) Ray with the options that verl's `run_ppo` would use.

    Args:
        config: verl's config; `ray_kwargs.ray_init` goes to `ray.init`.
    """
    options = ray_options(config)
    local = options["address"] == LOCAL
    if local and options.get("include_dashboard") is False:
        leave_out_helpers()
    draw_job_id()
    for attempt in range(1, ATTEMPTS + 1):
        try:
            ray.init(**options)
            break
        except ConnectionError as error:
            raise UserError(
                f"no Ray cluster at ray_kwargs.ray_init.address={options['address']} ({error}); start it first: "
                "bash scripts/ray_cluster.sh --help"
            ) from error
        except Exception as error:  # Ray raises a bare Exception here
            if not local or attempt == ATTEMPTS or "timed out during startup" not in str(error):
                raise
            print(f"Ray did not start (attempt {attempt} of {ATTEMPTS}): {error}", flush=True)
            ray.shutdown()
            _end_children()
            time.sleep(PAUSE_S)
    if not local:
        wait_for_other_run()
        wait_for_nodes(config.trainer.nnodes, config.trainer.n_gpus_per_node)
    elif config.trainer.device != "cpu":
        check_cpus(config.trainer.n_gpus_per_node)


def check_cpus(gpus: int) -> None:
    """Whether this machine's own Ray has the CPUs that verl will ask it for; it counts what a container may use.

    Raises:
        UserError: there are fewer.
    """
    needed, found = CPUS_PER_GPU * gpus + CPUS_BESIDES, int(ray.cluster_resources().get("CPU", 0))
    if found < needed:
        raise UserError(
            f"Ray has {found} CPUs here, and verl asks for {needed}: {CPUS_PER_GPU} for each of the {gpus} GPU(s) of "
            f"trainer.n_gpus_per_node and {CPUS_BESIDES} more; give the job or container more CPUs, or set "
            f"+ray_kwargs.ray_init.num_cpus={needed} to share those that are there"
        )


def wait_for_other_run(wait_s: float = ENDING_S) -> None:
    """Waits for a GRPO run that is ending on the cluster that was named.

    Two at a time would share one TransferQueue, which is found by a fixed name, and train on each other's trajectories.

    Raises:
        UserError: it is there after `wait_s` seconds.
    """
    deadline = time.monotonic() + wait_s
    while QUEUE in ray.util.list_named_actors(all_namespaces=True):
        if time.monotonic() > deadline:
            raise UserError(
                "another GRPO run is on the Ray cluster that ray_kwargs.ray_init.address names (its actor "
                f"{QUEUE['name']}, seen for {wait_s:.0f} s); a cluster takes one at a time: run the same command again "
                "once it has ended, or start another cluster, RAY_PORT=6380 bash scripts/ray_cluster.sh head, and "
                "name it, ray_kwargs.ray_init.address=HOST:6380"
            )
        time.sleep(1.0)


def wait_for_nodes(nodes: int, gpus: int, wait_s: float = JOIN_S) -> None:
    """Waits until so many nodes with so many GPUs each have joined the cluster that was named.

    Raises:
        UserError: they have not after `wait_s` seconds.
    """
    deadline, cpus = time.monotonic() + wait_s, CPUS_PER_GPU * gpus + CPUS_BESIDES
    while True:
        there = [
            (node["Resources"].get("GPU", 0), node["Resources"].get("CPU", 0)) for node in ray.nodes() if node["Alive"]
        ]
        if sum(has >= gpus and cores >= cpus for has, cores in there) >= nodes:
            return
        if time.monotonic() > deadline:
            have = ", ".join(f"{has:.0f} GPU(s) and {cores:.0f} CPUs" for has, cores in there) or "none"
            raise UserError(
                f"the Ray cluster's nodes have {have}; {nodes} with {gpus} GPU(s) and {cpus} CPUs each are needed "
                f"(trainer.nnodes, trainer.n_gpus_per_node) and have not joined within {wait_s:.0f} s; on every other "
                "node: bash scripts/ray_cluster.sh worker HEAD"
            )
        time.sleep(1.0)


def ray_options(config: DictConfig) -> dict[str, Any]:
    """The keyword arguments of `ray.init`, as verl's `run_ppo` makes them.

    On a CPU there is no runtime environment of verl's: the workers inherit this process's variables, which lets Ray use
    the processes it has started in advance, and spares this process the import of verl and torch. The workers of a
    cluster that was named inherit nothing: their variables are in `ray_init.runtime_env` (`training.grpo.launch`).
    """
    options = OmegaConf.to_container(config.ray_kwargs.get("ray_init", OmegaConf.create()), resolve=True)
    runtime_env = {key: value for key, value in (options.pop("runtime_env", None) or {}).items() if value is not None}
    if config.trainer.device != "cpu":
        from verl.trainer.constants_ppo import get_ppo_ray_runtime_env

        defaults = get_ppo_ray_runtime_env(config)
        wanted = {name: os.environ[name] for name in (GROUP_TIMEOUT, FOLDER) if name in os.environ}
        defaults.setdefault("env_vars", {}).update(wanted)  # also on the nodes of a cluster that was there before
        runtime_env = OmegaConf.to_container(OmegaConf.merge(defaults, runtime_env))
    if options.get("address"):  # the cluster has its sizes, and Ray refuses others
        options = {name: value for name, value in options.items() if name not in OF_A_NEW_CLUSTER}
    else:  # without it Ray would join the cluster that RAY_ADDRESS names
        options["address"] = LOCAL
    return options | ({"runtime_env": runtime_env} if runtime_env else {})


def leave_out_helpers() -> None:
    """Starts Ray without its autoscaler and its dashboard server, in this process only.

    One machine has nothing to scale, and the dashboard server runs even when the dashboard is off. Both cost about 5 s
    of start-up on two cores and 150 MB, and Ray has no option for it.
    """

    def no_api_server(self: Node, **_: Any) -> None:
        self._webui_url = None

    Node.start_monitor = lambda self: None
    Node.start_api_server = no_api_server


def draw_job_id() -> None:
    """Gives this process's Ray job an id that no other run on the machine has, instead of its cluster's next number.

    verl 0.9.1 hands the trainer's weights to the rollout engine through a socket in /tmp that is named by the job id
    alone. Each run has a Ray of its own, and in each the first job is number 1. So of two runs on one machine, one
    engine could take the other run's weights, or both would wait for ever.
    """
    ray._private.state.next_job_id = lambda: ray.JobID(secrets.token_bytes(ray.JobID.size()))


def _end_children() -> None:
    """A failed start leaves its servers behind."""
    for helper in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            helper.kill()
