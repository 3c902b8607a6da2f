"""SFT's progress bar."""

from types import SimpleNamespace

from training.sft.log import LogCallback


def test_the_bar_shows_a_loss_once_there_is_one(tmp_path):
    log, notes = LogCallback(tmp_path), []
    log.bar = SimpleNamespace(advance=notes.append)
    state = SimpleNamespace(global_step=1, is_world_process_zero=True)
    log.on_step_end(None, state, None)
    log.on_log(None, state, None, logs={"loss": 2.0, "num_tokens": 3, "epoch": 0.1})
    log.on_step_end(None, state, None)
    assert notes == ["", "loss 2.0000"]
