"""Folders and files."""

from __future__ import annotations

from ..live import Live
from ..task import Task, Verdict

WORDS = ("amber", "birch", "cedar", "delta", "ember", "fjord", "grove", "hazel", "iris", "jade", "kelp", "lotus")
LIMITS = {"max_steps": 40, "max_cost_usd": 1.0}


async def _draw_folders(live: Live) -> None:
    live.values["folders"] = live.random.sample(WORDS, 4)


def _ask_folders(live: Live) -> str:
    *first, last = live.values["folders"]
    return f"In your home folder make a folder `project` with four folders in it: {', '.join(first)} and {last}."


async def _check_folders(live: Live) -> Verdict:
    found = {entry.path.rsplit("/", 1)[-1] for entry in await live.files("project") if entry.is_dir}
    wanted = set(live.values["folders"])
    return Verdict(found == wanted, len(found & wanted) / len(wanted), f"found {sorted(found)}")


async def _mix_files(live: Live) -> None:
    live.values["files"] = {
        f"{word}.{ending}": f"{word} {live.random.random()}\n"
        for word, ending in zip(live.random.sample(WORDS, 9), ("csv", "txt", "log") * 3, strict=True)
    }
    for name, content in live.values["files"].items():
        await live.write(f"inbox/{name}", content)


async def _check_sorted(live: Live) -> Verdict:
    places = {"csv": "inbox/tables", "txt": "inbox/notes", "log": "inbox"}
    right = 0
    for name, content in live.values["files"].items():
        path = f"{places[name.rsplit('.', 1)[1]]}/{name}"
        right += await live.exists(path) and await live.read(path) == content
    total = len(live.values["files"])
    return Verdict(right == total, right / total, f"{right} of {total} files are where they belong")


async def _take_photos(live: Live) -> None:
    numbers = live.random.sample(range(100, 999), 5)
    live.values["numbers"] = numbers
    for number in numbers:
        await live.write(f"photos/IMG_{number}.jpg", f"picture {number}")


def _ask_photos(live: Live) -> str:
    return (
        "The folder `photos` in your home has pictures named IMG_<number>.jpg. "
        "Rename each to holiday-<number>.jpg, keeping its number. Leave no other file there."
    )


async def _check_photos(live: Live) -> Verdict:
    found = {entry.path.rsplit("/", 1)[-1] for entry in await live.files("photos")}
    wanted = {f"holiday-{number}.jpg" for number in live.values["numbers"]}
    kept = [number for number in live.values["numbers"] if f"holiday-{number}.jpg" in found]
    same = [await live.read(f"photos/holiday-{number}.jpg") == f"picture {number}" for number in kept]
    return Verdict(found == wanted and all(same), sum(same) / len(wanted), f"found {sorted(found)}")


MAKE_FOLDERS = Task(
    "make folders",
    _ask_folders,
    setup=_draw_folders,
    check=_check_folders,
    config=LIMITS,
    description="Create four named folders inside another.",
)
SORT_FILES = Task(
    "sort files",
    "In the folder `inbox` of your home, move every .csv file into `inbox/tables` and every .txt file into "
    "`inbox/notes` (make these folders). Leave the other files where they are.",
    setup=_mix_files,
    check=_check_sorted,
    config=LIMITS,
    description="Move files by their kind, without losing or touching others.",
)
RENAME_PHOTOS = Task(
    "rename photos",
    _ask_photos,
    setup=_take_photos,
    check=_check_photos,
    config=LIMITS,
    description="Rename five files by a pattern.",
)
