"""The batch scripts of docs/several_nodes.md are sound, and start the right thing on the right node."""

import os
import subprocess

import pytest

from doc_pages import ROOT, blocks

BATCHES = {
    block.treatment.rpartition("/")[2]: block.text
    for block in blocks(ROOT / "docs/several_nodes.md")
    if (block.treatment or "").endswith(".sbatch")
}
# A step says its node and runs its command there; `ray_cluster.sh status` fails at first.
SRUN = """#!/usr/bin/env bash
node=all
while [[ $1 == --* ]]; do case $1 in --nodelist=*) node=${1#*=} ;; esac; shift; done
NODE=$node SLURM_NODEID=1 exec "$@"
"""
SCRIPT = """#!/usr/bin/env bash
echo "$NODE: $(basename "$0") $* | HOST=${HOST:-} REPLICAS=${REPLICAS:-} KEY=${#TUTOR_API_KEY} NNODES=${NNODES:-} \
RANK=${NODE_RANK:-} MASTER=${MASTER_ADDR:-}" >>"$SLURM_SUBMIT_DIR/log"
[[ $1 != status || $(grep -c status "$SLURM_SUBMIT_DIR/log") -gt 1 ]] || exit 1
"""


@pytest.fixture
def submit(tmp_path):
    """Runs a batch script of the page; gives what its steps ran."""

    def run(name: str) -> list[str]:
        tools = {
            "srun": SRUN,
            "scontrol": "#!/bin/sh\nprintf 'n1\\nn2\\nn3\\n'\n",
            "sleep": "#!/bin/sh\n",
            "curl": "#!/bin/sh\n",
        }
        names = ("serve_tutor.sh", "ray_cluster.sh", "run_grpo.sh", "run_sft.sh")
        for path, text in {f"bin/{key}": text for key, text in tools.items()}.items() | {
            f"scripts/{key}": SCRIPT for key in names
        }.items():
            (tmp_path / path).parent.mkdir(exist_ok=True)
            (tmp_path / path).write_text(text, encoding="utf-8")
            (tmp_path / path).chmod(0o755)
        env = {"PATH": f"{tmp_path}/bin:{os.environ['PATH']}", "SLURM_SUBMIT_DIR": str(tmp_path), "SLURM_NNODES": "2"}
        done = subprocess.run(
            ["bash", "-c", BATCHES[name] + "\nwait"],
            env=env | {"SLURM_JOB_NODELIST": "n[1-3]"},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        return (tmp_path / "log").read_text(encoding="utf-8").splitlines()

    return run


@pytest.mark.parametrize("name", ["grpo.sbatch", "sft.sbatch"])
def test_a_batch_script_is_sound(name):
    checked = subprocess.run(["shellcheck", "-"], input=BATCHES[name], capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout


def test_grpo_starts_ray_on_two_nodes_and_the_tutor_on_the_third(submit):
    steps = submit("grpo.sbatch")
    places = {line.split(" | ")[0] for line in steps}
    grpo = next(line for line in steps if "run_grpo.sh" in line)
    assert {"n3: serve_tutor.sh ", "n1: ray_cluster.sh head --block", "n2: ray_cluster.sh worker n1 --block"} <= places
    assert grpo.startswith("n1: run_grpo.sh configs/grpo/qwen2_5_vl_3b.yaml trainer.nnodes=2 ")
    assert "safer_steer.tutor.base_url=http://n3:8000/v1" in grpo
    assert sum("status" in line for line in steps) == 2, "it waits for the head"
    tutor = next(line for line in steps if "serve_tutor" in line)
    assert "HOST=0.0.0.0 REPLICAS=4 KEY=32" in tutor
    assert "KEY=32" in grpo, "the same key on every node"


def test_sft_gives_each_node_its_number_and_the_rendezvous(submit):
    [line] = submit("sft.sbatch")
    assert line.endswith("NNODES=2 RANK=1 MASTER=n1")


def test_grpos_command_is_a_valid_run(submit, monkeypatch):
    """What the script hands to run_grpo.sh composes and passes the checks of a dry run."""
    from training.grpo.config import load_config

    monkeypatch.delenv("TUTOR_API_BASE_URL", raising=False)
    grpo = next(line for line in submit("grpo.sbatch") if "run_grpo.sh" in line)
    words = grpo.partition(" | ")[0].split()[2:]
    assert load_config(words[0], words[1:]).config.verl["trainer"]["nnodes"] == 2
