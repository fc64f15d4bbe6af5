"""A Tk window with a turning wheel (60 frames a second) and a button that changes colour when it is clicked."""

import tkinter

root = tkinter.Tk()
root.geometry("500x300+200+150")
root.title("spinner")
canvas = tkinter.Canvas(root, width=120, height=120, bg="white")
canvas.pack()
arc = canvas.create_arc(10, 10, 110, 110, extent=60, fill="red")
button = tkinter.Button(root, text="press", bg="grey", activebackground="grey")
button.configure(command=lambda: button.configure(bg="green", activebackground="green"))
button.pack(fill="both", expand=True)
angle = 0


def turn() -> None:
    global angle
    angle = (angle + 11) % 360
    canvas.itemconfigure(arc, start=angle)
    root.after(16, turn)


turn()
root.mainloop()
