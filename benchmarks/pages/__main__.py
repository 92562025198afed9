"""Update the generated parts of the pages, or draw their pictures.

``python -m benchmarks.pages`` writes the tables between markers: keys from ``cfg/model``, results from ``benchmarks/results``.
``python -m benchmarks.pages --check`` names the pages that differ and writes nothing.
``python -m benchmarks.pages --pictures legs lstm`` draws the pictures of some models, and without names all.
"""

import argparse
import sys

from benchmarks.pages import every_page
from benchmarks.pages.blocks import DOCS


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.pages", description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="name the pages that differ, and write nothing")
    parser.add_argument("--pictures", nargs="*", metavar="NAME", help="draw these pictures, or all")
    arguments = parser.parse_args()
    if arguments.pictures is not None:
        from benchmarks.pages import pictures

        pictures.draw(arguments.pictures or pictures.names())
        return
    paths = list(every_page.changed()) if arguments.check else every_page.update()
    for path in paths:
        print(path.relative_to(DOCS.parent))
    if arguments.check and paths:
        sys.exit("error: python -m benchmarks.pages updates these pages")


if __name__ == "__main__":
    main()
