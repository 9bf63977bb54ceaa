"""Converts the weights of Inception that the FID is defined on, once, into what the metrics read.

python -m scripts.convert_inception pt_inception-2015-12-05-6726825d.pth

The file is the user's; nothing is fetched. It is read without PyTorch, and nothing in it is run.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
from pathlib import Path

from latent.errors import UserError
from latent.extractors import inception, torch_file


def main() -> None:
    """Prints hash and place of what was written; exit code 2 where the file is another one or cannot be read."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    arguments = parser.parse_args()
    try:
        if not arguments.file.is_file():
            raise UserError(f"{arguments.file}: there is no such file.")
        content = arguments.file.read_bytes()
        sha256 = hashlib.sha256(content).hexdigest()
        inception.write(inception.place(), inception.converted(torch_file.read(content)), sha256)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    print(f"{inception.place()}: from a file of SHA-256 {sha256[:16]}")
    if sha256 != inception.PUBLISHED:
        print(f"This is not the published file ({inception.PUBLISHED[:16]}): no distance on it is called FID.")


if __name__ == "__main__":
    main()
