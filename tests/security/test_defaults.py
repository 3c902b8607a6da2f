"""Safe by default: no remote code, loopback only, YAML that builds no objects, no shell, no pickles, no guessable
temporary files.
"""

import ast
import os
import re
import shlex
import subprocess
from pathlib import Path

import pytest
import yaml
from omegaconf import OmegaConf

from safer_steer.config import load_raw
from safer_steer.errors import UserError
from safer_steer.servers import ServiceConfig, VllmConfig, _command, start_services
from training.grpo.config import load_config as load_grpo

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("safer_steer", "data_construction", "training", "evaluation", "miniature", "verl", "benchmarks")
SOURCES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
GRPO_CONFIGS = sorted((ROOT / "configs" / "grpo").glob("*.yaml"))
# call -> keyword arguments it must have (None: it must not be there at all)
RULES: dict[str, dict[str, object] | None] = {
    "yaml.load": None,
    "yaml.load_all": None,
    "yaml.unsafe_load": None,
    "yaml.full_load": None,
    "os.system": None,
    "os.popen": None,
    "subprocess.getoutput": None,
    "tempfile.mktemp": None,
    "pickle.load": None,
    "pickle.loads": None,
    "eval": None,
    "exec": None,
    "torch.load": {"weights_only": True},
}


def calls(path: Path) -> list[tuple[str, dict[str, object]]]:
    """Every call of a file: dotted name, and its constant keyword arguments."""
    nodes = [node for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, ast.Call)]
    return [
        (ast.unparse(node.func), {k.arg: getattr(k.value, "value", "?") for k in node.keywords if k.arg})
        for node in nodes
    ]


def test_no_call_runs_a_shell_builds_objects_or_trusts_remote_code():
    wrong = []
    for path in SOURCES:
        for name, keywords in calls(path):
            needed = RULES.get(name, {})
            missing = needed is None or any(keywords.get(key) != value for key, value in needed.items())
            if missing or keywords.get("shell") or keywords.get("trust_remote_code"):
                wrong.append(f"{path.relative_to(ROOT)}: {name}({keywords})")
    assert len(SOURCES) > 150
    assert not wrong, wrong


def test_scripts_and_configs_ask_for_no_remote_code():
    files = [*(ROOT / "scripts").glob("*.sh"), *(ROOT / "configs").rglob("*.yaml"), *(ROOT / "verl").rglob("*.yaml")]
    for path in files:
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"trust[_-]remote[_-]code(?!\W+false)", text, re.IGNORECASE), path
        assert "mktemp -u" not in text
        assert not re.search(r"\beval\b", text if path.suffix == ".sh" else ""), path


@pytest.mark.parametrize("config", GRPO_CONFIGS, ids=lambda path: path.stem)
def test_no_part_of_verl_trusts_remote_code(config, tmp_path, monkeypatch):
    monkeypatch.setenv("TUTOR_API_BASE_URL", "http://tutor.example:8000/v1")
    tree = load_grpo(config, [f"root={tmp_path}"]).tree
    found = [
        (key, value)
        for key, value in leaves(OmegaConf.to_container(tree, resolve=False))
        if key.endswith("trust_remote_code")
    ]
    assert len(found) >= 2, "verl's own switches are in the tree"
    assert not [key for key, value in found if value], found


def leaves(value: object, where: str = "") -> list[tuple[str, object]]:
    if isinstance(value, dict):
        return [leaf for key, item in value.items() for leaf in leaves(item, f"{where}.{key}")]
    if isinstance(value, list):
        return [leaf for number, item in enumerate(value) for leaf in leaves(item, f"{where}.{number}")]
    return [(where, value)]


def test_yaml_builds_no_objects(tmp_path):
    proof, path = tmp_path / "proof", tmp_path / "config.yaml"
    path.write_text(f'root: !!python/object/apply:os.system ["touch {proof}"]\n', encoding="utf-8")
    with pytest.raises(UserError, match="python"):
        load_raw(path)
    shown = stage("sft", str(path), "--dry-run")
    assert shown.returncode == 2
    assert shown.stderr.startswith("error: ")
    assert not proof.exists()
    with pytest.raises(yaml.YAMLError):
        yaml.safe_load(path.read_text(encoding="utf-8"))


def stage(name: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess:
    command = ["bash", f"scripts/{name}.sh" if name == "serve_tutor" else f"scripts/run_{name}.sh", *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=os.environ | environment, check=False)


def option(command: list[str], name: str) -> str:
    return command[command.index(name) + 1]


def test_vllm_is_served_on_loopback_without_remote_code(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    vllm = VllmConfig(checkpoint=str(tmp_path), max_model_len=64)
    command, _ = _command(ServiceConfig(serves="m", vllm=vllm))
    assert option(command, "--host") == "127.0.0.1"
    assert "--trust-remote-code" not in command
    assert "--allowed-local-media-path" not in command


def test_the_tutor_is_served_on_loopback_and_to_others_only_with_a_key():
    shown = stage("serve_tutor", "--dry-run", HOST="", TUTOR_API_KEY="")
    assert option(shlex.split(shown.stdout), "--host") == "127.0.0.1"
    assert "trust-remote-code" not in shown.stdout
    refused = stage("serve_tutor", "--dry-run", HOST="0.0.0.0", TUTOR_API_KEY="")
    assert refused.returncode == 2
    assert "TUTOR_API_KEY" in refused.stderr
    shown = stage("serve_tutor", "--dry-run", HOST="0.0.0.0", TUTOR_API_KEY="canary-key")
    assert option(shlex.split(shown.stdout), "--host") == "0.0.0.0"
    assert "canary-key" not in shown.stdout + shown.stderr


def test_a_started_service_listens_on_loopback_only(tmp_path):
    """The embedded teacher, as the kernel sees it: every listening socket of its process."""
    command = ["python", "-m", "miniature.teacher", "--port", "{port}"]
    service = ServiceConfig(serves="mini-judge", command=command)
    with start_services({"teacher": service}, tmp_path) as urls:
        port = int(urls["teacher"].split(":")[2].partition("/")[0])
        listening = [
            address
            for table in ("/proc/net/tcp", "/proc/net/tcp6")
            for line in Path(table).read_text(encoding="ascii").splitlines()[1:]
            for address, state in [(line.split()[1], line.split()[3])]
            if state == "0A" and address.endswith(f":{port:04X}")
        ]
    assert listening == [f"0100007F:{port:04X}"], "127.0.0.1, in the kernel's byte order"


def test_no_server_of_ours_binds_to_every_address():
    for path in SOURCES:
        text = path.read_text(encoding="utf-8")
        assert "0.0.0.0" not in text, path
        hosts = [keywords["host"] for name, keywords in calls(path) if "host" in keywords and "uvicorn" in name]
        assert set(hosts) <= {"127.0.0.1"}, path
