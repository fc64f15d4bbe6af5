"""The shell tool is bash: random scripts give the same output, status and later state as plain bash."""

from __future__ import annotations

import asyncio
import re
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cambio_lab.desktop.machine import Machine, Shell

from .plain_process import PlainProcess

NAMES = st.sampled_from(["a", "b", "long_name"])
WORDS = st.sampled_from(["x", "'two words'", '"$a"', "$b", "${long_name:-none}", "$((1 + 2))", "$(echo sub)", "*.none"])
FILES = st.sampled_from(["f1", "f2", "out.txt"])
SIMPLE = st.one_of(
    st.builds("echo {}".format, WORDS),
    st.builds("printf '%s|' {} {}; echo".format, WORDS, WORDS),
    st.builds("{}={}".format, NAMES, WORDS),
    st.builds("echo {} > {}".format, WORDS, FILES),
    st.builds("echo {} >> {}; cat {}".format, WORDS, FILES, FILES),
    st.builds("cat < {}".format, FILES),
    st.sampled_from(
        [
            *(
                "true",
                "false",
                "! true",
                "! false",
                ":",
                "(exit 7)",
                "no_such_command_here",
                "cd /",
                "cd -",
                "pwd",
                "cd",
            ),
            *("echo $?", "echo $? ${PIPESTATUS[@]}", "echo $_", "echo $#", "echo $-", "false | true | (exit 3)"),
            *("echo err >&2", 'read line; echo "[$line]"', "cat", "wait", "sleep 0.01 & wait $!; echo $?"),
            *(
                "exec 3> f3; echo to-three >&3; exec 3>&-; cat f3",
                "exec 4< f1",
                "cat <&4",
                "exec 4<&-",
                "echo late >&9",
            ),
            *(
                "continue",
                "break",
                "return",
                "local x=1",
                "shift",
                "unset a",
                "declare -a list=(1 2 3); echo ${list[1]}",
            ),
            *('f() { echo in f "$@"; return 4; }', "f one 'two three'", "f | cat", "unset -f f", "type f"),
            *("trap 'echo got usr1' USR1; kill -USR1 $$", "trap - USR1", "trap 'echo failed' ERR", "trap - ERR"),
            *("trap 'echo leaving' EXIT", "trap - EXIT", "trap", "trap '' TERM; kill -TERM $$; trap - TERM"),
            *("set -u", "set +u", "set -x", "set +x", "set -f", "set +f", "set -o pipefail", "set +o pipefail"),
            *(
                "set -e",
                "set +e",
                "set -C",
                "set +C",
                "shopt -s nullglob; echo *.none; shopt -u nullglob",
                "umask 077; umask",
            ),
            *("shopt -s extglob; echo @(f1|f2)", "alias ll='ls -l'", "set -- p q r; echo $2", "echo ${a:?unset}"),
            *("exec > f4; echo hidden; exec > /dev/stderr", "exec 2>&1", "test -e f1 && echo there || echo missing"),
            *("cat <<EOF\nhere $a\nEOF", "cat <<'EOF'\nliteral $a\nEOF", "cat <<-EOF\n\ttabbed\n\tEOF", 'cat <<< "$a"'),
            *("echo {1..4} ~", "let n=3; echo $((n ** 2))", "time -p true 2>/dev/null", "printf '  \\n'", "printf ''"),
            *(
                "builtin printf '%q\\n' \"$a\"",
                "command echo c",
                "eval 'echo evaluated $a'",
                "source /dev/null",
                "# comment",
            ),
            *(
                "mapfile -t m < f1; echo ${#m[@]}",
                "exec 5<> f5; echo rw >&5; exec 5>&-",
                "times > /dev/null",
                "hash -r",
            ),
            *(
                "echo $BASH_SUBSHELL $SHLVL ${FUNCNAME[0]-none}",
                "printf -v a '%03d' 7; echo $a",
                "echo a \\\n b",
                "exit 5",
            ),
            *(
                "kill -9 $$",
                "exec echo replaced",
                "exec true",
                "(trap 'echo sub' EXIT; exit 2)",
                "echo ${BASH_SOURCE[0]}",
            ),
        ]
    ),
)


def compound(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.one_of(
        st.builds("if {}; then {}; else {}; fi".format, _line(inner), _line(inner), _line(inner)),
        st.builds("for i in 1 2; do {}; done".format, _line(inner)),
        st.builds("n=0; while [ $n -lt 2 ]; do n=$((n + 1)); {}; done".format, _line(inner)),
        st.builds("case $a in x) {};; *) {};; esac".format, _line(inner), _line(inner)),
        st.builds("({})".format, _line(inner)),
        st.builds("{{ {}; }} 2>&1".format, _line(inner)),
        st.builds("{} && {}".format, _line(inner), _line(inner)),
        st.builds("{} || {}".format, _line(inner), _line(inner)),
        st.builds("{} | cat".format, _line(inner)),
        st.builds("echo $({})".format, _line(inner)),
        st.builds("g() {{ {}; }}\ng a b".format, _line(inner)),
    )


def _line(commands: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    """Commands that may stand before a semicolon: no here-document, no comment, no line continuation."""
    return commands.filter(
        lambda text: "<<E" not in text and "<<'" not in text and "#" not in text[:1] and "\\\n" not in text
    )


COMMANDS = st.lists(
    st.lists(st.recursive(SIMPLE, compound, max_leaves=4), min_size=1, max_size=3).map("\n".join),
    min_size=1,
    max_size=4,
)
PROBE = """echo "status $? ${PIPESTATUS[@]}"; echo "last $_"
echo "options $- $(shopt -p extglob)"; pwd; umask; set +u; echo "vars $a $b $long_name $n"
declare -F; trap; echo "args $@"; ls; jobs"""


class Here(Machine):
    """Programs of this machine in one home folder."""

    def __init__(self, home: Path) -> None:
        super().__init__(str(home), (str(home),), sys.executable)
        self.environment = {"HOME": self.home, "PATH": "/usr/local/bin:/usr/bin:/bin", "LANG": "C.UTF-8"}

    async def spawn(self, argv: Sequence[str]) -> PlainProcess:
        return await PlainProcess.start(argv, self.environment, self.home)


async def through_the_tool(home: Path, commands: list[str]) -> tuple[str, str, int | None]:
    shell = Shell(Here(home))
    stdout, stderr, code = "", "", None
    try:
        for command in commands:
            result = await shell.run(command, 20)
            stdout, stderr, code = stdout + result.stdout, stderr + result.stderr, result.exit_code
            assert not result.timed_out
            if result.shell_ended:
                break
    finally:
        await shell.restart()
    return stdout, stderr, code


async def through_plain_bash(home: Path, commands: list[str]) -> tuple[str, str, int | None]:
    """The same lines as one script, named ``bash`` as ours is, begun in the home folder."""
    script = home / "bash"
    script.write_text('builtin cd -- "$HOME"; unset OLDPWD; export OLDPWD; rm bash\n' + "\n".join(commands) + "\n")
    process = await PlainProcess.start(["bash", "--noprofile", "--norc", "bash"], Here(home).environment, str(home))
    await process.close_stdin()
    output = {1: b"", 2: b""}
    async with asyncio.timeout(20):
        while (piece := await process.read()) is not None:
            output[piece[0]] += piece[1]
        code = await process.wait()
    process.abandon()
    return output[1].decode(errors="replace"), output[2].decode(errors="replace"), code


def masked(text: str) -> str:
    """The text with line numbers, process numbers and the home folder's name masked."""
    text = re.sub(r"line \d+", "line N", text.replace("/ours", "/HOME").replace("/theirs", "/HOME"))
    return re.sub(r"(?<![\w/-])\d{3,}\b", "P", text)


async def both(folder: Path, commands: list[str]) -> list[tuple[str, str, int | None]]:
    """Output, errors and status of the commands through the tool and through plain bash."""
    found = []
    for name, run in (("ours", through_the_tool), ("theirs", through_plain_bash)):
        home = folder / name
        home.mkdir()
        (home / "f1").write_text("first\nsecond\n")
        (home / "f2").write_text("")
        out, err, code = await run(home, [*commands, PROBE, "exit"])
        found.append((masked(out), masked(err), code))
    return found


@given(commands=COMMANDS)
@settings(max_examples=200, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
def test_random_scripts_behave_as_in_plain_bash(tmp_path_factory: pytest.TempPathFactory, commands: list[str]) -> None:
    folder = tmp_path_factory.mktemp("shell")
    try:
        ours, theirs = asyncio.run(both(folder, commands))
        assert ours == theirs, "\n".join(commands)
    finally:
        shutil.rmtree(folder)


ODD = {
    "debug trap inherited": ["trap 'echo D' DEBUG; set -T", "f() { echo in; }", "f", "trap - DEBUG; set +T"],
    "return trap": ["trap 'echo R' RETURN; f() { :; }; set -T; f", "source /dev/null", "trap - RETURN"],
    "streams moved and put back": [
        "exec 3>&1 4>&2 1>out 2>&1",
        "echo a; ls none",
        "exec 1>&3 2>&4 3>&- 4>&-",
        "cat out",
    ],
    "standard input closed": ["exec 0<&-", "read x; echo $?", "exec 0</dev/null", "cat"],
    "a named descriptor": ["exec {fd}>f; echo x >&$fd; exec {fd}>&-; cat f", "exec 200>lock; flock 200; echo locked"],
    "set -e in a function": ["set -e; f() { false; echo after; }", "f || echo caught", "false", "echo never"],
    "a pipe fails under set -e": ["set -eo pipefail", "false | true", "echo never"],
    "coproc": [
        "coproc cat; echo hi >&${COPROC[1]}; read -u ${COPROC[0]} x; echo $x; kill $COPROC_PID; wait 2>/dev/null"
    ],
    "extglob": ["shopt -s extglob", "echo !(f1)", "f() { case $1 in @(a|b)) echo ab;; esac; }; f a"],
    "here-strings": ["cat <<< $'a\\nb'", "read a b <<< 'x y z'; echo $b", "wc -l <<< ''"],
    "BASH_ENV": ["echo 'echo from env' >env.sh; export BASH_ENV=$PWD/env.sh", "bash -c 'echo sub'", "unset BASH_ENV"],
    "PS4": ["PS4='[$?] '; set -x", "false; true", "PS4='$(echo x) '; :", "set +x"],
    "a trace of its own": ["exec 9>trace; BASH_XTRACEFD=9; set -x; echo t; set +x; exec 9>&-; cat trace"],
    "BASHPID": ["[ $$ = $BASHPID ] && echo same; ( [ $$ = $BASHPID ] || echo differ )"],
    "wait": ["(exit 9) & p=$!", "wait $p; echo $?", "wait 999999; echo $?", "(exit 3) & wait -n; echo $?"],
    "builtins taken over": [
        "printf() { builtin echo p; }; trap() { :; }; exit() { :; }",
        "printf x",
        "unset -f printf trap exit",
    ],
    "no PATH": ["PATH=", "ls", "echo $?", "PATH=/usr/bin:/bin; ls"],
    "few descriptors": ["ulimit -n 20; ulimit -f 0; echo x > big; echo $?"],
    "IFS": ["IFS=0x; printf '%s\\n' 10x0", "echo $?", "unset IFS"],
    "execfail": ["shopt -s execfail; exec nosuch; echo $?", "exec -a name bash -c 'echo $0'"],
    "the folder vanishes": ["mkdir x; cd x; rmdir ../x; pwd", "ls; echo $?", "cd .."],
    "exit in a trap": ["trap 'echo bye; exit 4' EXIT", "exit 2"],
    "signals": ["trap 'echo int' INT; kill -INT $$; echo alive", "kill -HUP $$", "echo never"],
    "set -a, -k, -t": ["set -a; v=1; env | grep ^v=; set +a", "set -k; echo a=1 b; set +k", "set -t; echo once"],
    "process substitution": ["mapfile -t m < <(seq 3); echo ${#m[@]}", "exec 5< <(echo ps); read -u 5 z; echo $z"],
    "no terminal": ["tty; test -t 0; echo $?; test -t 1; echo $?"],
    "nothing of ours": [
        "env | grep -ci cambio; set | grep -ci cambio; compgen -A function; shopt -s xpg_echo; echo 'a\\tb'"
    ],
}


@pytest.mark.parametrize("name", ODD)
async def test_odd_scripts_behave_as_in_plain_bash(tmp_path: Path, name: str) -> None:
    ours, theirs = await both(tmp_path, ODD[name])
    assert ours == theirs
