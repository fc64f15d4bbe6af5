"""Write docs/images/first-session.webp, the README's film, from the recorded run of the first notebook.

python scripts/make_readme_film.py [RUN.cambio [TARGET.webp]]
"""

from __future__ import annotations

import sys
from pathlib import Path

from cambio_lab import Run

ROOT = Path(__file__).resolve().parent.parent
RUN = ROOT / "notebooks/runs/01-first-session-1.cambio"
TARGET = ROOT / "docs/images/first-session.webp"
MAX_BYTES = 3_000_000


def main(source: Path = RUN, target: Path = TARGET) -> None:
    Run.load(source).to_video(target, speed=1.6)
    size = target.stat().st_size
    print(f"{target}: {size:,} bytes")
    if size > MAX_BYTES:
        sys.exit(f"The film has {size:,} bytes; the README's limit is {MAX_BYTES:,}.")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:3]))
