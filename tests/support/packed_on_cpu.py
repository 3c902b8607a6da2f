"""GRPO along its packed path on a CPU: run as a program it is the stage's command, with `varlen` allowed; as verl's
`external_lib` it gives the worker the stand-in of the CUDA kernel (varlen_kernel.py), for which nothing else is put.
"""

import sys

if __name__ == "__main__":
    from safer_steer_verl.platform import attention
    from training.grpo.run import run_cli

    choose = attention.choose
    attention.choose = lambda setting, device: setting if setting == "varlen" else choose(setting, device)
    sys.exit(run_cli())

import safer_steer_verl.platform.engine  # noqa: F401  the library whose place this one takes
import varlen_kernel

varlen_kernel.install()
