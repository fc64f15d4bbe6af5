"""A window with a coloured button at X Y; a click on it is confirmed in ~/clicked-NUMBER and closes the window.

Runs inside the desktop, with its own Python: target.py NUMBER X Y.
"""

from __future__ import annotations

import pathlib
import sys
import tkinter as tk

number, x, y = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
home = pathlib.Path.home()
window = tk.Tk()
window.title("target " + number)
window.geometry(f"120x70+{x}+{y}")
button = tk.Label(window, text="Press", bg="#00c853", fg="black")
button.pack(expand=True, fill="both", padx=20, pady=15)


def clicked(event: tk.Event) -> None:
    (home / ("clicked-" + number)).write_text(f"{event.x_root} {event.y_root}")
    window.destroy()


button.bind("<Button-1>", clicked)
window.after_idle(lambda: window.after(100, (home / ("ready-" + number)).touch))
window.mainloop()
