"""What there is to name in a config: benchmarks, sources of seeds, attack strategies, prompts and model families.

    python -m safer_steer.listing [KIND ...]      (bash scripts/list.sh does the same)

The registries lie above the core, so this module imports none of them by name in code.
"""

import argparse
from collections.abc import Callable
from importlib import import_module
from typing import Any

from safer_steer.cli import exit_code

Lines = list[tuple[str, str]]


def _registry(module: str, name: str) -> Any:
    return getattr(import_module(module), name)


def _benchmarks() -> Lines:
    found = _registry("evaluation.benchmarks", "BENCHMARKS")
    kinds = {True: "single-turn", False: "multi-turn"}
    return [(name, f"{item.column}, {kinds[item.single_turn]}") for name, item in found.items()]


def _sources() -> Lines:
    found = _registry("data_construction.sources", "SOURCES")
    return [(name, source.what) for name, source in found.items() if name == source.name]


def _strategies() -> Lines:
    found = _registry("data_construction.red_team.strategies", "STRATEGIES")
    return [(name, strategy.description) for name, strategy in found.items()]


def _prompts() -> Lines:
    return [(name, shown.reader) for name, shown in _registry("safer_steer.prompt_catalogue", "catalogue")().items()]


def _models() -> Lines:
    found = _registry("safer_steer.model_shape", "families")()
    return [(name, f"{family.parameters / 1e9:.1f} B parameters") for name, family in found.items()]


KINDS: dict[str, tuple[str, Callable[[], Lines]]] = {
    "benchmarks": ("file names that evaluation knows; any other is a multi-turn benchmark", _benchmarks),
    "sources": ("reader of sources.NAME; details: python -m data_construction.sources", _sources),
    "strategies": ("red_team.strategies", _strategies),
    "prompts": ("and who reads them; one as it is sent: python -m safer_steer.prompts show NAME", _prompts),
    "models": ("families that can be trained; evaluation takes any model that vLLM or an endpoint serves", _models),
}


def main(argv: list[str] | None = None) -> int:
    """Prints the kinds that are asked for, or all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kinds", nargs="*", metavar="KIND", help=f"one of {', '.join(KINDS)}; all without it")
    kinds = parser.parse_args(argv).kinds or list(KINDS)
    if unknown := [kind for kind in kinds if kind not in KINDS]:
        parser.error(f"no {', '.join(unknown)} to list; choose from {', '.join(KINDS)}")

    def show() -> None:
        for kind in kinds:
            what, lines = KINDS[kind]
            print(f"{kind}: {what}")
            print("\n".join(f"  {name:<19}  {said}" for name, said in lines()))

    return exit_code(show)


if __name__ == "__main__":
    raise SystemExit(main())
