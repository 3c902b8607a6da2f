"""Data construction in a Ray cluster of two nodes: two raylets on this machine, a worker on each."""

import json

import pytest

import ray_nodes
from data_steps import run_step

FILES = ("candidates.jsonl", "dialogues.jsonl", "rejects.jsonl", "attack_failures.jsonl", "seeds.jsonl")


@pytest.mark.nightly
@pytest.mark.integration
@pytest.mark.timeout(1800)
def test_two_nodes_give_the_rows_of_one_process(double, make_seeds, make_config, tmp_path):
    source = {"train": {"reader": "jsonl", "path": str(make_seeds("train", [f"weak {i}" for i in range(20)]))}}
    local = make_config(source, root=str(tmp_path / "local"))
    run_step("stage1", local)
    asked = len(double.requests)
    with ray_nodes.nodes(2, cpus=1) as address:  # a worker takes a CPU, so each node has one
        engine = {"name": "ray", "workers": 2, "address": address}
        remote = make_config(source, root=str(tmp_path / "ray"), engine=engine, concurrency=8)
        run_step("stage1", remote)
    for name in FILES:
        assert sorted((remote.folder / name).read_bytes().splitlines()) == sorted(
            (local.folder / name).read_bytes().splitlines()
        ), name
    assert len(double.requests) == 2 * asked
    record = json.loads((remote.folder / "run.stage1.json").read_text())
    assert record["status"] == "finished"
