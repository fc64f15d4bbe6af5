"""An editor window that keeps its text in ~/typed.txt after every change. Runs inside the desktop."""

from __future__ import annotations

import pathlib
import tkinter as tk

home = pathlib.Path.home()
window = tk.Tk()
window.geometry("900x500+100+100")
text = tk.Text(window, font=("DejaVu Sans", 12), undo=False)
text.pack(expand=True, fill="both")


def save(_event: tk.Event) -> None:
    if text.edit_modified():
        (home / "typed.txt").write_bytes(text.get("1.0", "end-1c").encode())
        text.edit_modified(False)


text.bind("<<Modified>>", save)
text.focus_force()
window.after_idle(lambda: window.after(100, (home / "editor-ready").touch))
window.mainloop()
