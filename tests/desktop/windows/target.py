"""A coloured button at a place given by arguments x, y; a click makes the file named last."""

import sys
import tkinter
from pathlib import Path

x, y, path = int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])
root = tkinter.Tk()
root.overrideredirect(True)
root.geometry(f"30x24+{x}+{y}")
button = tkinter.Button(root, bg="#ff00ff", activebackground="#ff00ff", relief="flat", bd=0, highlightthickness=0)
button.configure(command=path.touch)
button.place(x=0, y=0, width=30, height=24)
root.mainloop()
