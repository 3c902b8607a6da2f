"""The shared core of SaFeR-Steer: dialogue schema, rubric, images, JSONL store, config, prompts, LLM client, servers,
runs.
"""

import importlib.util
import sys
from pathlib import Path

# `verl/` is a source root next to this package (see verl/README.md); scripts put it on the path, `python -m` by hand
# does not.
if importlib.util.find_spec("safer_steer_verl") is None:
    sys.path.append(str(Path(__file__).resolve().parents[1] / "verl"))

__version__ = "0.1.0"
