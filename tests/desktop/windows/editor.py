"""A Tk text editor. Arguments: the file that ctrl+s writes. "ready" is a file beside it, made when it has the focus."""

from __future__ import annotations

import sys
import tkinter
from pathlib import Path

path = Path(sys.argv[1])
root = tkinter.Tk()
root.geometry("900x500+100+100")
root.title("editor")
text = tkinter.Text(root, undo=False, tabs="40")
text.pack(fill="both", expand=True)


def save(_event: tkinter.Event) -> str:
    content = text.get("1.0", "end-1c").encode("utf-16", "surrogatepass").decode("utf-16")
    path.write_text(content, "utf-8", newline="")
    return "break"


root.bind_all("<Control-s>", save)
text.bind("<FocusIn>", lambda _event: Path(f"{path}.ready").touch())
text.focus_force()
root.mainloop()
