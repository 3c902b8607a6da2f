"""What the end of a process means: signals, exit codes, the kernel's count, and the memory at that moment."""

import pytest

from safer_steer import deaths, machine
from safer_steer.deaths import MemoryLog, cause_of_death, signal_of


@pytest.mark.parametrize(
    ("code", "wanted"),
    [(-9, 9), (137, 9), (-11, 11), (139, 11), (143, 15), (0, None), (1, None), (255, None), (None, None)],
)
def test_the_signal_of_an_exit_status(code, wanted):
    assert signal_of(code) == wanted


@pytest.mark.parametrize(
    ("code", "said"),
    [
        (-9, "was killed (signal 9), mostly the kernel's doing when memory runs out; "),
        (137, "was killed (signal 9), mostly"),
        (None, "vanished without a word, as one that is killed (signal 9), mostly"),
        (-11, "was ended by signal 11 (SIGSEGV); see the log"),
        (3, "ended with code 3; see the log"),
    ],
)
def test_an_end_is_said_with_its_likely_cause(code, said):
    words = cause_of_death(code, MemoryLog(), "lower x")
    assert words.startswith(said)
    assert ("GiB" in words) == ("lower x" in words) == ("signal 9" in words)
    assert "not known here" in cause_of_death(None, None, "lower x"), "another machine's memory"


def test_the_fullest_moment_of_the_last_seconds_is_remembered_and_the_kernels_count_is_a_proof(monkeypatch, tmp_path):
    events = tmp_path / "memory.events"
    events.write_text("low 0\noom 3\noom_kill 2\n")
    monkeypatch.setattr(deaths, "COUNTS", (events, tmp_path / "absent"))
    used = iter([1, 23, 2, 2])
    monkeypatch.setattr(deaths, "memory_in_use", lambda: (next(used) * 2**30, 24.0 * 2**30))
    memory = MemoryLog()
    for _ in range(3):
        memory.sample()
    assert memory.words() == "23.0 of 24.0 GiB of this machine's memory were in use at that moment"
    assert not memory.kernel_killed()
    events.write_text("low 0\noom 4\noom_kill 3\n")
    assert "the kernel was out of memory and ended it; 23.0 of 24.0" in cause_of_death(-9, memory, "lower x")


def test_a_containers_limit_counts_where_it_has_one(monkeypatch, tmp_path):
    (tmp_path / "max").write_text("1000")
    (tmp_path / "current").write_text("900")
    monkeypatch.setattr(
        deaths, "LIMITS", ((str(tmp_path / "absent"), ""), (str(tmp_path / "max"), f"{tmp_path}/current"))
    )
    assert deaths.memory_in_use() == (900.0, 1000.0)
    assert machine.host_memory()[0] == 1000.0, "what a run may need"
    (tmp_path / "max").write_text("max")
    assert deaths.memory_in_use()[1] > 2**30
