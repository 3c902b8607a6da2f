"""Our SFT entry with an onlooker: after the first step each rank writes how DeepSpeed holds every parameter.

torchrun ... tests/support/zero3_observer.py CONFIG FOLDER      FOLDER/rank_N.json: name -> what is held here
"""

import json
import os
import sys
from pathlib import Path

from transformers import TrainerCallback

from safer_steer.config import load_config
from training.sft import run, trainer
from training.sft.config import SftConfig


class Onlooker(TrainerCallback):
    """Changes nothing."""

    def on_step_end(self, args, state, control, model=None, **_):
        """Writes the first step's view: between steps nothing is gathered."""
        if state.global_step != 1:
            return
        held = {
            name: {
                "whole": list(getattr(weight, "ds_shape", weight.shape)),
                "shape": list(weight.shape),
                "part": weight.ds_tensor.numel() if getattr(weight, "ds_tensor", None) is not None else None,
                "persistent": bool(getattr(weight, "ds_persist", False)),
                "dtype": str(weight.dtype),
            }
            for name, weight in model.named_parameters()
        }
        Path(sys.argv[2], f"rank_{os.environ['RANK']}.json").write_text(json.dumps(held))


def build_and_watch(*arguments, **options):
    """`build_trainer`, and the onlooker among its callbacks."""
    built = build(*arguments, **options)
    built.trainer.add_callback(Onlooker())
    return built


build, trainer.build_trainer = trainer.build_trainer, build_and_watch
sys.exit(run.main(load_config(SftConfig, sys.argv[1], [])))
