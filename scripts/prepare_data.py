"""Prepares a data set from files on disk, or lists the known sets.

python -m scripts.prepare_data mnist --from=DIRECTORY
python -m scripts.prepare_data --list
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from latent.data import dataset, prepare
from latent.errors import UserError


def main() -> None:
    """Exit code 0, or 2 where the files are missing or not what they should be."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", nargs="?", help="a data set of latent/data")
    parser.add_argument("--from", dest="raw", type=Path, help="directory with the set's raw files")
    parser.add_argument("--data_dir", type=Path, help="where to keep it; default TFDS_DATA_DIR or TFDS's own")
    parser.add_argument("--list", action="store_true", help="print the known sets")
    arguments = parser.parse_args()
    try:
        if arguments.list or arguments.name is None:
            _list()
        else:
            _prepare(arguments.name, arguments.raw, arguments.data_dir)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


def _list() -> None:
    for name, source in dataset.sources().items():
        print(f"{name:<16} {source.card['title']}, version {source.version}")
        for key in ("source", "licence", "attribution", "splits"):
            print(f"{'':<16}   {key}: {source.card[key]}")


def _prepare(name: str, raw: Path | None, data_dir: Path | None) -> None:
    if raw is not None and not raw.is_dir():
        raise UserError(f"--from={raw} is not a directory.")
    place = prepare.prepare(name, dataset.data_directory(data_dir), raw)
    found = dataset.load(name, data_dir)
    for split, arrays in found.splits.items():
        print(f"{split:<11}{len(arrays.x):>7} examples  SHA-256 {found.digests[split][:16]}")
    print(f"{name} is prepared in {place.parent}")


if __name__ == "__main__":
    main()
