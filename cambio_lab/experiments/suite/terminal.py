"""Work that a shell does best."""

from __future__ import annotations

import json

from ..live import Live
from ..task import Task, Verdict
from .files import LIMITS

BROKEN = """\
import sys


def average(numbers):
    total = 0
    for number in numbers[1:]:
        total += number
    return total / len(numbers)


print(average([float(word) for word in sys.argv[1:]]))
"""


async def _write_log(live: Live) -> None:
    levels = live.random.choices(("INFO", "WARNING", "ERROR"), weights=(80, 12, 8), k=400)
    lines = [
        f"2026-03-{1 + number // 20:02} 10:{number % 60:02}:00 {level} worker-{live.random.randrange(9)}: "
        f"{'no ERROR here' if level == 'INFO' and number % 7 == 0 else 'job ' + str(number)}"
        for number, level in enumerate(levels)
    ]
    live.values["errors"] = levels.count("ERROR")
    await live.write("server.log", "\n".join(lines) + "\n")


async def _check_count(live: Live) -> Verdict:
    text = (await live.read("answer.txt")).strip()
    return Verdict(
        text == str(live.values["errors"]), float(text == str(live.values["errors"])), f"wrote {text[:40]!r}"
    )


async def _write_script(live: Live) -> None:
    live.values["numbers"] = [live.random.randrange(1, 100) for _ in range(5)]
    await live.write("average.py", BROKEN)


async def _check_script(live: Live) -> Verdict:
    """With numbers that nobody has seen, and with one number alone."""
    right, said = 0, []
    for numbers in (live.values["numbers"], [7]):
        ran = await live.shell("python3 average.py " + " ".join(map(str, numbers)))
        said.append((ran.stdout + ran.stderr).strip()[-60:])
        try:
            right += abs(json.loads(ran.stdout) - sum(numbers) / len(numbers)) < 1e-9
        except (ValueError, TypeError):
            continue
    return Verdict(right == 2, right / 2, f"printed {said}")


COUNT_ERRORS = Task(
    "count errors",
    "The file server.log in your home has one entry a line: date, time, level, worker, text. "
    "How many entries have the level ERROR? Write the number alone into answer.txt in your home.",
    setup=_write_log,
    check=_check_count,
    config=LIMITS,
    description="Count lines by a field, not by a word that also occurs elsewhere.",
)
FIX_SCRIPT = Task(
    "fix script",
    "average.py in your home prints the average of the numbers it is given, but the result is wrong. "
    "Find the mistake and repair it.",
    setup=_write_script,
    check=_check_script,
    config=LIMITS,
    description="Repair a small Python program; the check runs it with other numbers.",
)
