"""An Inspect task on a desktop of ours: press the green button. ``inspect eval`` runs this file."""

from __future__ import annotations

from inspect_ai import Task, task
from inspect_ai.dataset import Sample
from inspect_ai.scorer import Score, Scorer, Target, accuracy, scorer
from inspect_ai.solver import TaskState
from inspect_ai.util import SandboxEnvironmentSpec, sandbox

from cambio_lab.interop.inspect_registry import cambio_agent
from cambio_lab.interop.inspect_sandbox import SandboxConfig

BUTTON = """
import pathlib, tkinter
root = tkinter.Tk()
root.geometry("400x300+300+200")
button = tkinter.Button(root, background="#00c853", activebackground="#00c853", width=12, height=5)
def press():
    pathlib.Path("pressed.txt").write_text("pressed")
    button.destroy()
button.configure(command=press)
button.pack(pady=60)
root.after(300, lambda: pathlib.Path("ready").write_text(""))
root.mainloop()
"""
SETUP = "setsid python3 button.py >/dev/null 2>&1 </dev/null & until [ -e ready ]; do sleep 0.1; done"


@scorer(metrics=[accuracy()])
def pressed() -> Scorer:
    async def score(state: TaskState, target: Target) -> Score:
        said = state.output.completion
        found = await sandbox().read_file("pressed.txt")
        return Score(value="C" if found == target.text else "I", answer=said)

    return score


@task
def button(model: str = "claude-sonnet-5-5") -> Task:
    sample = Sample("Press the green button.", target="pressed", id="green", files={"button.py": BUTTON}, setup=SETUP)
    desktop = SandboxEnvironmentSpec("cambio", SandboxConfig(model=model, network="none"))
    return Task([sample], solver=cambio_agent(max_steps=20), scorer=pressed(), sandbox=desktop, name="button")
