"""Stage III: data preparation and launch of tutor-in-the-loop GRPO; verl with `safer_steer_verl` does the training."""

import importlib.util
import sys
from pathlib import Path

# `verl/` is a source root beside this package (see verl/README.md); scripts put it on the path, `python -m` by hand
# does not.
if importlib.util.find_spec("safer_steer_verl") is None:
    sys.path.append(str(Path(__file__).resolve().parents[2] / "verl"))
