"""``python -m tests.messages_api --port 8400 --policy click``: the stand-in as a process, until it is interrupted."""

from __future__ import annotations

import argparse
import signal
import threading

from .policies import NAMED, ColorTarget, Policy, Steps
from .server import MessagesApi


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--key", default="test-key")
    parser.add_argument("--policy", choices=sorted(NAMED), default="click")
    parser.add_argument("--color", default="#00c853", help="what `click` looks for")
    parser.add_argument("--count", type=int, default=50, help="calls that `steps` makes")
    parser.add_argument("--delay", type=float, default=0.0, help="seconds of model time before each reply")
    parser.add_argument("--pace", type=float, default=0.0, help="seconds between the events of a stream")
    options = parser.parse_args()
    given: dict[str, Policy] = {"click": ColorTarget(options.color), "steps": Steps(options.count)}
    policy = given.get(options.policy)
    done = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: done.set())
    with MessagesApi(
        policy or NAMED[options.policy](), key=options.key, port=options.port, delay=options.delay, pace=options.pace
    ) as api:
        print(f"ANTHROPIC_BASE_URL={api.base_url} ANTHROPIC_API_KEY={api.key}", flush=True)
        done.wait()
        for message in api.refusals:
            print("refused:", message)
        print(f"requests={len(api.requests)} spent_usd={api.spent_usd:.6f}", flush=True)


if __name__ == "__main__":
    main()
