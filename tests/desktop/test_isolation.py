"""What a program in a desktop can do to anyone else: nothing."""

from __future__ import annotations

import asyncio
import http.server
import os
import threading
import time
from collections.abc import Iterator

import pytest

from cambio_lab.desktop.docker.provider import DockerProvider
from cambio_lab.desktop.provider import DesktopOptions

# Each line: a name, then what the attempt gave. Written as somebody who wants out would write it.
ATTACK = r"""
say() { printf '%s\t%s\n' "$1" "$(printf '%s' "$2" | tr '\n' ' ' | cut -c1-200)"; }
say key-env "$(env | grep -ciE 'anthropic|api_key|sk-ant')"
say key-proc "$(cat /proc/*/environ 2>/dev/null | tr '\0' '\n' | grep -ciE 'anthropic|sk-ant')"
say key-files "$(grep -rls 'sk-ant-se[c]ret' /home /tmp /etc /run /var /opt /srv /root 2>/dev/null | head -1)"
say docker-socket "$(ls /var/run/docker.sock /run/docker.sock /run/*engine* 2>/dev/null)"
say root "$(id -u) $(grep -E 'CapEff|CapBnd|NoNewPrivs' /proc/self/status | tr -d '\t')"
say setuid "$(find / -xdev -perm /6000 -type f 2>/dev/null | head -3)"
say su "$(echo | timeout 3 su -c id 2>/dev/null)"
say mount "$(mount -t tmpfs none /tmp 2>/dev/null && echo mounted)"
say unshare "$(unshare -r id -u 2>/dev/null)"
say write-root "$(touch /etc/x /usr/x /bin/x /root/x 2>/dev/null && echo written)"
say rules "$(nft flush ruleset 2>/dev/null && echo flushed)"
say host-http "$(for a in $GATEWAY $HOST; do curl -s -m 2 http://$a:$PORT/ ; done)"
say other-vnc "$(timeout 2 bash -c "head -c 12 </dev/tcp/$OTHER/5900" 2>/dev/null)"
say metadata "$(curl -s -m 2 http://169.254.169.254/latest/meta-data/)"
say raw-socket "$(python3 -c 'from socket import *; socket(AF_PACKET, SOCK_RAW)' 2>/dev/null && echo opened)"
say disk "$(head -c 2000000000 /dev/zero > /tmp/full 2>/dev/null; stat -c %s /tmp/full; rm -f /tmp/full)"
"""


@pytest.fixture
def host_server() -> Iterator[int]:
    """Something on every address of this machine, as a careless Jupyter would be; its port."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"the host's secrets")

        def log_message(self, *arguments: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("0.0.0.0", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server.server_port
    server.shutdown()
    thread.join()
    server.server_close()


def host_address() -> str:
    """An address of this machine that is not loopback."""
    import socket

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(("192.0.2.200", 9))
        return str(probe.getsockname()[0])


@pytest.mark.timeout(120)
async def test_every_attempt_is_refused(
    docker_provider: DockerProvider, host_server: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-ant-secret")
    victim, desktop = [await docker_provider.acquire(name, DesktopOptions()) for name in ("victim", "attacker")]
    _, address, _ = await victim.execute(["hostname", "-I"])
    _, route, _ = await desktop.execute(["awk", '$2 == "00000000" { print $3 }', "/proc/net/route"])
    gateway = ".".join(str(byte) for byte in reversed(bytes.fromhex(route.decode().split()[0])))
    variables = f"GATEWAY={gateway} HOST={host_address()} PORT={host_server} OTHER={address.decode().strip()}"
    _, out, error = await desktop.execute(["bash", "-c", f"{variables}\n{ATTACK}"], timeout=90)
    found = dict(line.split("\t", 1) for line in out.decode().splitlines())
    for name, got in found.items():
        print(f"{name:14} {got}")
    assert len(found) == ATTACK.count("\nsay "), error
    assert found.pop("root").startswith("1000 CapBnd:0000000000000000") or "CapEff:0000000000000000" in out.decode()
    assert "CapEff:0000000000000000" in out.decode()
    assert "NoNewPrivs:1" in out.decode()
    assert found.pop("key-env") == "0"
    assert found.pop("key-proc") == "0"
    assert int(found.pop("disk")) <= 512 * 1024**2
    assert {name: got for name, got in found.items() if got} == {}
    assert (await victim.screenshot()).width == 1280


@pytest.mark.timing
@pytest.mark.timeout(120)
async def test_a_fork_bomb_and_a_full_memory_stay_inside(docker_provider: DockerProvider) -> None:
    victim, desktop = [await docker_provider.acquire(name, DesktopOptions()) for name in ("victim", "attacker")]
    before = len(os.listdir("/proc"))  # noqa: PTH208
    bomb = asyncio.create_task(desktop.run_command(":(){ :|:& };:; sleep 4", timeout=6))
    await asyncio.sleep(2)
    assert len(os.listdir("/proc")) - before < 800  # noqa: PTH208
    begin = time.monotonic()
    assert (await victim.execute(["echo", "fine"]))[1] == b"fine\n"
    assert (await victim.screenshot()).width == 1280
    assert time.monotonic() - begin < 10
    bomb.cancel()
    await asyncio.wait([bomb])
    await desktop.close()
    eater = await docker_provider.acquire("eater", DesktopOptions())
    hog = "b = []\nwhile True: b.append(bytearray(50_000_000))"
    code, _, _ = await eater.execute(["python3", "-c", hog], timeout=60)
    assert code != 0
    assert (await victim.screenshot()).width == 1280
