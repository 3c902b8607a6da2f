"""The engines: what they share, and Ray workers against one process, with a worker killed on the way."""

import json
import os
import signal
import threading
import time
from types import SimpleNamespace

import psutil
import pytest

from data_construction.stage_one import stage_one
from data_steps import run_step
from safer_steer.config import relevant
from safer_steer.errors import UserError
from safer_steer.llm import EndpointConfig
from safer_steer.servers import free_port
from safer_steer.usage import merge_usage

SOURCE = {"a": {"reader": "jsonl", "path": "seeds.jsonl"}}


def lines(config, name: str) -> list[bytes]:
    return sorted((config.folder / name).read_bytes().splitlines())


def test_the_engine_does_not_change_what_is_computed(make_config):
    local, remote = (stage_one(make_config(SOURCE, engine=engine)) for engine in ("local", "ray"))
    assert relevant(local.facts()) == relevant(remote.facts())


def test_workers_together_keep_to_a_roles_limits():
    endpoint = EndpointConfig(model="m", base_url="http://127.0.0.1:1/v1", concurrency=64)
    assert endpoint.share(4).concurrency == 16
    assert endpoint.share(100).concurrency == 1
    limits = {"requests_per_minute": 600.0, "tokens_per_minute": 90_000.0}
    limited = endpoint.model_copy(update=limits)
    assert {name: getattr(limited.share(3), name) * 3 for name in limits} == limits


def test_usage_of_workers_adds_up():
    one = {"generator": {"model": "m", "calls": 2, "outcomes": {"ok": 2}, "latency_p95_s": 0.5, "usd": 0.1}}
    two = {
        "generator": {"model": "m", "calls": 3, "outcomes": {"ok": 1, "filtered": 2}, "latency_p95_s": 0.2, "usd": 0.2}
    }
    assert merge_usage([one, two])["generator"] == {
        "model": "m",
        "calls": 5,
        "outcomes": {"ok": 3, "filtered": 2},
        "latency_p95_s": 0.5,
        "usd": pytest.approx(0.3),
    }
    assert merge_usage([{"usd": 0.0}, {"usd": "unknown"}]) == {"usd": "unknown"}


def test_a_cluster_that_cannot_do_the_work_is_refused(monkeypatch):
    import ray

    from safer_steer.ray_workers import _check_cluster

    roles = {"generator": EndpointConfig(model="m", base_url="http://127.0.0.1:1/v1")}
    monkeypatch.setattr(ray, "cluster_resources", lambda: {"CPU": 2.0})
    nodes = [{"Alive": True, "NodeManagerAddress": f"10.0.0.{number}"} for number in (1, 2)]
    monkeypatch.setattr(ray, "nodes", lambda: [nodes[0], nodes[0], nodes[1] | {"Alive": False}])
    _check_cluster(2, roles)
    with pytest.raises(UserError, match=r"has 2 CPU"):
        _check_cluster(3, roles)
    monkeypatch.setattr(ray, "nodes", lambda: nodes)
    for host in ("127.0.0.1", "[::1]", "localhost", "0.0.0.0", "127.3.2.1"):
        roles = {"generator": EndpointConfig(model="m", base_url=f"http://{host}:1/v1")}
        with pytest.raises(UserError, match="generator: an endpoint on loopback"):
            _check_cluster(2, roles)
    _check_cluster(2, {"generator": EndpointConfig(model="m", base_url="https://models.example/v1")})


def test_a_cluster_that_is_not_there_is_said_at_once(make_seeds, make_config):
    source = {"train": {"reader": "jsonl", "path": str(make_seeds("train", ["a"]))}}
    address = f"127.0.0.1:{free_port()}"
    config = make_config(source, engine={"name": "ray", "address": address})
    with pytest.raises(UserError, match=f"engine.address '{address}': no Ray cluster"):
        run_step("stage1", config)


def _kill_one_worker(file, killed: list[int]) -> None:
    """Ends one of the Ray workers that this process started, once some rows are there."""
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline and not killed:
        if file.exists() and file.read_bytes().count(b"\n") >= 15:
            for process in psutil.Process().children(recursive=True):
                if " ".join(process.cmdline()).startswith("ray::Worker"):
                    os.kill(process.pid, signal.SIGKILL)
                    killed.append(process.pid)
                    break
        time.sleep(0.01)


@pytest.mark.integration
def test_ray_gives_the_same_rows_and_a_killed_worker_loses_none(double, make_seeds, make_config, tmp_path):
    source = {"train": {"reader": "jsonl", "path": str(make_seeds("train", [f"weak {i}" for i in range(40)]))}}
    local = make_config(source, root=str(tmp_path / "local"))
    run_step("stage1", local)
    asked = len(double.requests)

    double.delay_s = 0.05
    remote = make_config(source, root=str(tmp_path / "ray"), engine={"name": "ray", "workers": 2}, concurrency=8)
    killed: list[int] = []
    watcher = threading.Thread(target=_kill_one_worker, args=(remote.folder / "candidates.jsonl", killed), daemon=True)
    watcher.start()
    run_step("stage1", remote)
    watcher.join(10)

    assert killed
    for name in ("candidates.jsonl", "dialogues.jsonl", "rejects.jsonl", "attack_failures.jsonl", "seeds.jsonl"):
        assert lines(remote, name) == lines(local, name), name
    usage = json.loads((remote.folder / "run.stage1.json").read_text())["usage"]
    assert set(usage) == {"generator", "target", "evaluator"}
    again = len(double.requests) - 2 * asked  # what was in flight at the killed worker, and its forgotten probes
    assert 0 <= again <= 3 * remote.concurrency


def test_an_answer_that_could_not_be_stored_ends_the_work_with_its_reason(monkeypatch):
    from ray.exceptions import RayTaskError

    from safer_steer import ray_workers

    def get(_):
        raise RayTaskError("put", "", UserError("response cache x: disk full"))

    monkeypatch.setattr(ray_workers.ray, "wait", lambda writes, **_: (writes, []))
    monkeypatch.setattr(ray_workers.ray, "get", get)
    keeper = SimpleNamespace(put=SimpleNamespace(remote=lambda key, answer: key))
    with pytest.raises(UserError, match="disk full"):
        ray_workers.RemoteCache(keeper).put("a", "answer")
