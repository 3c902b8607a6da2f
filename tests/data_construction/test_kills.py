"""A run killed with its whole process group at random moments and resumed ends like one that nobody interrupts."""

from benchmarks.kill_stage1 import main


def test_killed_at_random_moments_and_resumed(capsys):
    assert main(["--kills", "4", "--seeds", "24", "--random-seed", "1"]) == 0
    assert "4 kills" in capsys.readouterr().out
