"""The persistent shell and single programs, on both kinds of desktop."""

from __future__ import annotations

import asyncio
import time

import pytest
import pytest_asyncio

from cambio_lab.desktop.connected import ConnectedDesktop
from cambio_lab.errors import ActionError

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(loop_scope="module", autouse=True)
async def fresh(kept: ConnectedDesktop) -> None:
    """Each test gets a shell of its own."""
    await kept.restart_shell()


async def test_state_stays_from_command_to_command(kept: ConnectedDesktop) -> None:
    assert (await kept.run_command("cd /usr; GREETING='a b'; f() { echo \"$1!\"; }")).exit_code == 0
    result = await kept.run_command('pwd; echo "$GREETING"; f x; echo problem >&2; (exit 3)')
    assert (result.stdout, result.stderr, result.exit_code) == ("/usr\na b\nx!\n", "problem\n", 3)


async def test_output_is_exact_and_bounded(kept: ConnectedDesktop) -> None:
    assert (await kept.run_command("printf 'no newline äöß漢🙂'")).stdout == "no newline äöß漢🙂"
    big = await kept.run_command("head -c 3000000 /dev/zero | tr '\\0' x; echo end >&2", timeout=60)
    assert len(big.stdout) == 1_000_000
    assert (big.truncated, big.stderr, big.exit_code) == (True, "end\n", 0)


@pytest.mark.timing
async def test_a_timeout_spares_what_was_put_in_the_background(kept: ConnectedDesktop) -> None:
    await kept.run_command("sleep 1000 & echo $! > background")
    begin = time.monotonic()
    result = await kept.run_command("echo before; sleep 500; echo after", timeout=1.0)
    assert time.monotonic() - begin < 8
    assert (result.timed_out, result.exit_code, result.stdout) == (True, None, "before\n")
    alive = await kept.run_command("kill -0 $(cat background) && echo alive; pgrep -fx 'sleep 500' || echo gone; pwd")
    assert alive.stdout == f"alive\ngone\n{kept.machine.home}\n"
    await kept.run_command("kill $(cat background)")


async def test_exit_and_broken_syntax(kept: ConnectedDesktop) -> None:
    assert (await kept.run_command("if then")).exit_code not in (0, None)
    result = await kept.run_command("echo last; exit 7")
    assert (result.stdout, result.exit_code) == ("last\n", 7)
    assert (await kept.run_command("echo new")).stdout == "new\n"


async def test_nothing_of_ours_is_in_the_shell(kept: ConnectedDesktop) -> None:
    async def out(command: str) -> str:
        return (await kept.run_command(command)).stdout

    assert await out("exec 3>f; echo hi >&3; exec 3>&-") == "" and await out("cat f") == "hi\n"
    assert await out("c=hello; echo $c") == "hello\n" and await out("echo $c") == "hello\n"
    await kept.run_command("false")
    assert await out("echo $?") == "1\n"
    await kept.run_command("false | true | (exit 3)")
    assert await out("echo $? ${PIPESTATUS[@]}") == "3 1 0 3\n"
    assert (await kept.run_command("continue; break; echo on")).stdout == "on\n"
    assert await out("declare -F; trap; shopt -po | grep -c monitor; echo $-") == "1\nhB\n"
    assert await out("compgen -A function; compgen -v | grep -iE 'mark|cambio'; echo none") == "none\n"
    await kept.run_command("exec >log 2>&1")
    assert await out("echo hidden") == ""
    await kept.restart_shell()
    assert await out("cat log") == "hidden\n"


async def test_reading_programs_get_nothing_and_do_not_eat_the_next_command(kept: ConnectedDesktop) -> None:
    assert (await kept.run_command("cat; read x; echo done")).stdout == "done\n"
    assert (await kept.run_command("echo next")).stdout == "next\n"


async def test_a_cancelled_command_is_killed(kept: ConnectedDesktop) -> None:
    running = asyncio.create_task(kept.run_command("sleep 600"))
    await asyncio.sleep(1.5)
    running.cancel()
    await asyncio.wait([running])
    assert (await kept.run_command("pgrep -fx 'sleep 600' || echo gone")).stdout == "gone\n"


async def test_a_null_character_is_refused_at_once(kept: ConnectedDesktop) -> None:
    with pytest.raises(ActionError, match="null character"):
        await kept.run_command("echo a\0b", timeout=5)
    assert (await kept.run_command("echo next")).stdout == "next\n"


async def test_restart(kept: ConnectedDesktop) -> None:
    await kept.run_command("X=1")
    await kept.restart_shell()
    assert (await kept.run_command("echo [$X]")).stdout == "[]\n"


async def test_single_programs(kept: ConnectedDesktop) -> None:
    code, out, error = await kept.execute(["sh", "-c", "cat; echo oops >&2; exit 4"], stdin=b"given" * 20000)
    assert (code, out, error) == (4, b"given" * 20000, b"oops\n")
    assert (await kept.execute(["head", "-c", "5000", "/dev/zero"], limit=100))[1] == b"\0" * 100
    with pytest.raises(TimeoutError):
        await kept.execute(["sleep", "700"], timeout=0.7)
    assert (await kept.execute(["pgrep", "-fx", "sleep 700"]))[0] == 1


async def test_nothing_of_the_server_is_in_the_environment(
    kept: ConnectedDesktop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-secret")
    _, out, _ = await kept.execute(["env"])
    assert b"sk-secret" not in out
    assert b"ANTHROPIC" not in out
