"""Stage III on packed rows on a CPU, with the stand-in for the CUDA kernel: training.grpo.run as a program, and what
verl's workers import as an external library.
"""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parent))

if __name__ == "__main__":
    from safer_steer_verl.platform import attention
    from training.grpo.run import run_cli

    attention.choose = lambda setting, device: "varlen"
    libraries = "[safer_steer_verl.platform.engine,packed_on_cpu]"
    sys.exit(run_cli([*sys.argv[1:], f"actor_rollout_ref.model.external_lib={libraries}"]))
else:
    import varlen_kernel

    varlen_kernel.install()
