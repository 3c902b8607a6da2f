"""The launcher passes on what its command says, to the last line."""

import sys
import time

from safer_steer import launcher


def test_the_last_words_of_a_command_that_ends_by_itself_are_passed_on(monkeypatch, capfd):
    pass_on = launcher._pass_on

    def late(child):
        time.sleep(0.2)  # a busy machine
        pass_on(child)

    monkeypatch.setattr(launcher, "_pass_on", late)
    code = launcher.launch([sys.executable, "-c", "import sys; sys.exit('the last words')"])
    assert (code, capfd.readouterr().err) == (1, "the last words\n")
