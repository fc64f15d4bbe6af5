"""A Tk window that writes down every event it gets, one JSON object a line. Arguments: the file to write."""

from __future__ import annotations

import json
import sys
import tkinter
from collections.abc import Callable

root = tkinter.Tk()
root.geometry("600x400+200+150")
root.title("recorder")
canvas = tkinter.Canvas(root, width=600, height=400, bg="#eeeeee", highlightthickness=0)
canvas.pack()
out = open(sys.argv[1], "a", buffering=1)  # noqa: SIM115, PTH123


def note(kind: str) -> Callable[[tkinter.Event], None]:
    def write(event: tkinter.Event) -> None:
        fields = {"kind": kind, "x": event.x_root, "y": event.y_root, "state": event.state}
        fields |= {"num": event.num, "keysym": event.keysym, "char": event.char}
        out.write(json.dumps(fields) + "\n")

    return write


for kind in ("ButtonPress", "ButtonRelease", "KeyPress", "KeyRelease", "Motion", "FocusIn"):
    root.bind(f"<{kind}>", note(kind))
for count, kind in enumerate(("Double-Button-1", "Triple-Button-1"), 2):
    root.bind(f"<{kind}>", note(f"click{count}"))
root.focus_force()
root.mainloop()
