"""The authors' files into our rows, and our rows into their format.

    python -m data_construction.released read bench steer_*.jsonl --output outputs/released/data [--pictures FOLDER]
    python -m data_construction.released write rl outputs/steer/data/steer_rl.jsonl --output outputs/steer/released

`read` writes `steer_sft.jsonl`, `steer_rl.jsonl` or `steer_bench/NAME.jsonl`, as data construction does. Rows
that cannot be used are in `FORMAT_rejects.jsonl`, with file and line.
"""

import argparse
import sys
from pathlib import Path
from typing import get_args

from data_construction.released.files import read_released, write_released
from data_construction.released.formats import Format
from safer_steer.cli import exit_code


def main(argv: list[str] | None = None) -> int:
    """Converts, and says what became of the rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("direction", choices=["read", "write"])
    parser.add_argument("format", choices=get_args(Format))
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--output", type=Path, required=True, help="folder to write")
    parser.add_argument("--pictures", type=Path, help="read: folder with the pictures (default: that of each file)")
    arguments = parser.parse_args(argv)

    def run() -> None:
        if arguments.direction == "read":
            done = read_released(arguments.format, arguments.files, arguments.output, arguments.pictures)
        else:
            done = write_released(arguments.format, arguments.files, arguments.output)
        print(done.say())

    return exit_code(run)


if __name__ == "__main__":
    sys.exit(main())
