"""The run's own log: `log.jsonl` (a row for each logged step), `eval.jsonl`, `loss.png`, and the progress bar."""

import math
import time
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from safer_steer import plots
from safer_steer.errors import UserError
from safer_steer.progress import ProgressBar
from safer_steer.store import dump_row, read_jsonl, rows_if_there
from training.sft.checkpoints import rewind_log

LOGGED = ("loss", "learning_rate", "grad_norm", "mean_token_accuracy", "num_tokens", "epoch")


def require_finite(name: str, value: float, step: int, folder: Path) -> None:
    """Stops the run on NaN or infinity.

    Raises:
        UserError: `value` is not finite.
    """
    if not math.isfinite(value):
        raise UserError(
            f"{name} is {value} at step {step}: training stopped before it could spoil a checkpoint; those in {folder} "
            "are sound; lower training.learning_rate or training.max_grad_norm, or look for odd rows in the data"
        )


class LogCallback(TrainerCallback):
    """Writes the logs, moves the progress bar."""

    def __init__(self, folder: Path):
        self.path, self.eval_path, self.figure = folder / "log.jsonl", folder / "eval.jsonl", folder / "loss.png"
        self.bar, self.last = None, {}
        self._tokens_before, self._started = 0, time.monotonic()

    def rewind(self, step: int) -> None:
        """Goes back to `step`, the one that training resumes from; the trainer counts tokens again from there."""
        self.last = rewind_log(self.path, step)
        rewind_log(self.eval_path, step)
        self._tokens_before = self.last.get("num_tokens", 0)

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Opens the progress bar at the step from which training continues."""
        if state.is_world_process_zero:
            self.bar = ProgressBar("sft: train", state.max_steps, done=state.global_step)
            self.bar.__enter__()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Counts the step."""
        if self.bar:
            self.bar.advance(f"loss {self.last['loss']:.4f}" if "loss" in self.last else "")

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **_: Any) -> None:
        """Appends one row."""
        logs = logs or {}
        if "eval_loss" in logs and state.is_world_process_zero:
            row = {"step": state.global_step, "epoch": logs["epoch"], "eval_loss": float(logs["eval_loss"])}
            _append(self.eval_path, row)
        values = {name: float(logs[name]) for name in LOGGED if name in logs}
        if "loss" not in values:
            return
        values["num_tokens"] = int(values.get("num_tokens", 0)) + self._tokens_before
        self.last = {"step": state.global_step, **values, "seconds": round(time.monotonic() - self._started, 1)}
        if state.is_world_process_zero:
            _append(self.path, self.last)

    def totals(self) -> dict[str, float]:
        """Last loss and tokens seen, for the closing line; empty on ranks that have logged nothing."""
        found = {"loss": round(self.last["loss"], 4), "tokens": self.last["num_tokens"]} if self.last else {}
        held_out = list(rows_if_there(self.eval_path))
        return found | ({"held-out loss": round(held_out[-1]["eval_loss"], 4)} if held_out else {})

    def close(self, error: BaseException | None = None) -> None:
        """Ends the progress bar and draws the loss curve."""
        if self.bar:
            self.bar.__exit__(type(error) if error else None, error, None)
            if self.path.is_file():
                draw_loss(self.path, self.eval_path, self.figure)


def _append(path: Path, row: dict[str, Any]) -> None:
    with path.open("a", encoding="utf-8", newline="\n") as file:
        file.write(dump_row(row) + "\n")


def draw_loss(log: Path, eval_log: Path, target: Path) -> None:
    """Draws training loss (and held-out loss, where there is one) over steps, as PNG and SVG."""
    figure, (axes,) = plots.panels(1, 1, figsize=(7, 4), dpi=120, layout="constrained")
    for number, (path, metric, label) in enumerate(((log, "loss", "training"), (eval_log, "eval_loss", "held out"))):
        steps, values = plots.points(read_jsonl(path), metric) if path.is_file() else ([], [])
        if steps:
            axes.plot(steps, values, marker="o" if number else "", label=label, **plots.style(number))
    axes.set(xlabel="step", ylabel="loss per label token (nats)", ylim=(0, 1.05 * axes.dataLim.y1))
    axes.legend()
    plots.write(figure, target)
