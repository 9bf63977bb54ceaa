"""Prepares a data set from files on disk, or lists the known sets. Any image set of TFDS is known by its name there.

python -m scripts.prepare_data mnist --from=DIRECTORY
python -m scripts.prepare_data celeb_a --from=DIRECTORY --resize=64
python -m scripts.prepare_data --list
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from latent.data import catalogue, dataset, prepare
from latent.errors import UserError


def main() -> None:
    """Exit code 0, or 2 where the files are missing or not what they should be."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", nargs="?", help="a data set of latent/data or of TFDS, or folder")
    parser.add_argument("--from", dest="raw", type=Path, help="directory with the set's raw files")
    parser.add_argument("--resize", type=int, help="side that images are brought to; default: as they are")
    parser.add_argument("--data_dir", type=Path, help="where to keep it; default TFDS_DATA_DIR or TFDS's own")
    parser.add_argument("--list", action="store_true", help="print the known sets")
    arguments = parser.parse_args()
    try:
        if arguments.list or arguments.name is None:
            _list()
        else:
            _prepare(arguments.name, arguments.raw, arguments.data_dir, arguments.resize)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


def _list() -> None:
    for name, source in dataset.sources().items():
        print(f"{name}: {source.card['title']}, version {source.version}")
        for key in ("source", "licence", "attribution", "splits"):
            print(f"    {key + ':':<13}{source.card[key]}")


def _prepare(name: str, raw: Path | None, data_dir: Path | None, resize: int | None) -> None:
    if raw is not None and not raw.is_dir():
        raise UserError(f"--from={raw} is not a directory.")
    folder = dataset.data_directory(data_dir)
    options = dataset.Options(resize=resize, budget=0)
    if name == "folder":
        options = options._replace(folder=str(raw or ""), broken_limit=10)
    elif name in dataset.sources():
        prepare.prepare(name, folder, raw)
    elif raw is not None:
        catalogue.prepare(name, folder, resize, raw)
    found = dataset.load(name, data_dir, options)
    for split, examples in found.splits.items():
        print(f"{split:<11}{len(examples.x):>7} examples  SHA-256 {found.digests[split][:16]}")
    print(f"{name} is prepared in {folder}")


if __name__ == "__main__":
    main()
