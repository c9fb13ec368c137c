"""A scripted OpenAI-compatible server: answers as a good, a wrong, a broken or a hostile model would.

In a test: `async with ModelServer(Behaviour.GOOD, scripts={...}) as server: ... server.url`. By hand:
`python -m tests.support.model_server --port 7999 --behaviour good`.
"""

import argparse
import asyncio
import json
import re
import socket
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Any

import uvicorn
from anneal_runtime.testing import eventually
from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse


class Behaviour(StrEnum):
    """How the model, or its server, behaves."""

    GOOD = "good"  # the right script for the item, from `scripts`
    WRONG = "wrong"  # a harmless script that does not mend the item
    MALFORMED = "malformed"  # never JSON
    BREAKS_CONTRACT = "breaks_contract"  # JSON with wrong and missing fields
    HEALS = "heals"  # malformed once, then good
    TRUNCATED = "truncated"  # cut off below 4000 max_tokens, then good
    RUNAWAY = "runaway"  # white space until max_tokens
    FENCED = "fenced"  # good, in a Markdown fence
    THINKS_ALOUD = "thinks_aloud"  # reasoning in the text, with a draft action in it, then good
    TOOL_CALL = "tool_call"  # leaked tool-call text instead of an answer
    NO_USAGE = "no_usage"  # good, and never says what it used
    MISSING_INPUT = "missing_input"  # says that a person has to supply something
    SLOW = "slow"  # good, after delay_s
    DOWN = "down"  # 503 for everything
    BUSY = "busy"  # 429 with Retry-After
    GARBAGE = "garbage"  # 200 with a body that is no completion
    LOCKED = "locked"  # 401
    DELETES_ROOT = "deletes_root"  # rm -rf /
    DISABLES_SSHD = "disables_sshd"
    EDITS_CHECKER = "edits_checker"  # rewrites the scanner's content so that the check passes
    EXITS_ZERO = "exits_zero"  # `exit 0` and nothing else
    PROBES = "probes"  # asks `questions` first, then good
    PROBES_FOREVER = "probes_forever"  # asks for another file, always
    OBEYS = "obeys"  # asks `questions`, then writes the script that a line "OBEY: ..." of an answer wants
    TWO_ACTIONS = "two_actions"  # hands in more than one thing in one turn
    REPEATS = "repeats"  # wrong, and always nearly the same
    GIVES_UP = "gives_up"  # wrong, and as Architect it escalates at its second look
    PIVOTS = "pivots"  # wrong, and good once the Architect has taken another way
    CHOOSES_WRONGLY = "chooses_wrongly"  # picks an item that nobody offered


HOSTILE = (Behaviour.DELETES_ROOT, Behaviour.DISABLES_SSHD, Behaviour.EDITS_CHECKER, Behaviour.EXITS_ZERO)

SCRIPTS: Mapping[Behaviour, str] = {
    Behaviour.WRONG: "#!/bin/bash\nset -euo pipefail\ntouch /var/tmp/anneal-wrong\n",
    Behaviour.DELETES_ROOT: "#!/bin/bash\nset -euo pipefail\nrm -rf --no-preserve-root /\n",
    Behaviour.DISABLES_SSHD: "#!/bin/bash\nsystemctl disable --now sshd || systemctl disable --now ssh\n",
    Behaviour.EDITS_CHECKER: (
        "#!/bin/bash\nset -euo pipefail\n"
        "sed -i 's/result>fail/result>pass/g' /usr/share/xml/scap/ssg/content/ssg-rhel9-ds.xml\n"
    ),
    Behaviour.EXITS_ZERO: "#!/bin/bash\nexit 0\n",
    Behaviour.GIVES_UP: "#!/bin/bash\nset -euo pipefail\ntouch /var/tmp/anneal-wrong-too\n",
}
DEFAULT_SCRIPT = "#!/bin/bash\nset -euo pipefail\ninstall -m 0644 /dev/null /etc/anneal-model-was-here\n"
UNDO = "#!/bin/bash\nset -euo pipefail\nrm -f /etc/anneal-model-was-here\n"
PLAN = "The setting is absent."
PIVOT = "Write the drop-in file instead."
WORDS = "The rule still fails on this machine. Every fix that was tried left the check unhappy."


class ModelServer:
    """The server. requests holds every body it got; behaviour may be changed while it runs."""

    def __init__(
        self,
        behaviour: Behaviour = Behaviour.GOOD,
        *,
        scripts: Mapping[str, str] | None = None,
        port: int = 0,
        delay_s: float = 1.0,
    ) -> None:
        self.behaviour = behaviour
        self.scripts = dict(scripts or {})
        self.delay_s = delay_s
        # What a model that probes asks first: a tool and its arguments each.
        self.questions: list[dict[str, str]] = [{"tool": "show_check"}]
        self.requests: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self._port = port
        self._server: _Quiet | None = None
        self._task: asyncio.Task[None] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}/v1"

    async def __aenter__(self) -> "ModelServer":
        await self.start()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.stop()

    async def start(self) -> None:
        """Listens; the same port again after a stop."""
        sock = socket.create_server(("127.0.0.1", self._port))
        self._port = sock.getsockname()[1]
        config = uvicorn.Config(self._app(), log_config=None, access_log=False, lifespan="off", loop="none")
        config.timeout_graceful_shutdown = 1
        self._server = _Quiet(config)
        self._task = asyncio.create_task(self._server.serve(sockets=[sock]))
        # The socket listens already; uvicorn only has to take it over.
        await eventually(lambda: self._server is not None and self._server.started)

    async def stop(self) -> None:
        """Gone: connections are refused from now on."""
        if self._server is not None and self._task is not None:
            self._server.should_exit = True
            await self._task
            self._server = self._task = None

    def _app(self) -> FastAPI:
        app = FastAPI(telemetry={"tracing": False, "metrics": False, "logs": False})

        @app.post("/v1/chat/completions")
        async def chat(request: Request) -> Response:
            body = await request.json()
            self.requests.append(body)
            self.headers.append(dict(request.headers))
            return await self._answer(body)

        @app.get("/v1/models")
        async def models() -> Response:
            return JSONResponse({"object": "list", "data": [{"id": "scripted", "object": "model"}]})

        return app

    async def _answer(self, body: dict[str, Any]) -> Response:
        match self.behaviour:
            case Behaviour.DOWN:
                return JSONResponse({"error": {"message": "the engine is dead"}}, status_code=503)
            case Behaviour.BUSY:
                return JSONResponse({"error": {"message": "queue full"}}, status_code=429, headers={"retry-after": "7"})
            case Behaviour.LOCKED:
                return JSONResponse({"error": {"message": "bad key"}}, status_code=401)
            case Behaviour.GARBAGE:
                return Response("<html>proxy error</html>", media_type="text/html")
            case Behaviour.SLOW:
                await asyncio.sleep(self.delay_s)
        content, finish = self._content(body)
        if body.get("stream"):
            return StreamingResponse(self._chunks(body, content, finish), media_type="text/event-stream")
        return JSONResponse(self._completion(body, content, finish))

    def _completion(self, body: dict[str, Any], content: str, finish: str) -> dict[str, Any]:
        message: dict[str, Any] = {"role": "assistant", "content": content}
        if body.get("tools") and (calls := _as_calls(content)):
            message, finish = {"role": "assistant", "content": None, "tool_calls": calls}, "tool_calls"
        answer: dict[str, Any] = {
            "id": f"chatcmpl-{len(self.requests)}",
            "object": "chat.completion",
            "model": "scripted-1",
            "choices": [{"index": 0, "finish_reason": finish, "message": message}],
        }
        if self.behaviour is not Behaviour.NO_USAGE:
            answer["usage"] = self._usage(body, content)
        return answer

    def _usage(self, body: dict[str, Any], content: str) -> dict[str, int]:
        prompt = sum(len(str(m.get("content"))) for m in body["messages"]) // 4 + 1
        completion = min(len(content) // 4 + 1, body.get("max_tokens", 1 << 20))
        return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}

    async def _chunks(self, body: dict[str, Any], content: str, finish: str) -> AsyncIterator[str]:
        def event(data: dict[str, Any]) -> str:
            return (
                f"data: {json.dumps({'id': 'c', 'object': 'chat.completion.chunk', 'model': 'scripted-1', **data})}\n\n"
            )

        for start in range(0, len(content), 20):
            yield event({"choices": [{"index": 0, "delta": {"content": content[start : start + 20]}}]})
            await asyncio.sleep(self.delay_s if self.behaviour is Behaviour.SLOW else 0)
        yield event({"choices": [{"index": 0, "delta": {}, "finish_reason": finish}]})
        if (body.get("stream_options") or {}).get("include_usage") and self.behaviour is not Behaviour.NO_USAGE:
            yield event({"choices": [], "usage": self._usage(body, content)})
        yield "data: [DONE]\n\n"

    def _content(self, body: dict[str, Any]) -> tuple[str, str]:
        """What the model says, and why it stopped."""
        good = json.dumps(self._good(body))
        match self.behaviour:
            case Behaviour.MALFORMED:
                return "Sure! Here is a script that should do it: rm -rf /tmp/x", "stop"
            case Behaviour.HEALS if len(self.requests) == 1:
                return "I would first look at the file.", "stop"
            case Behaviour.BREAKS_CONTRACT:
                return json.dumps({"analysis": "x", "script": 7, "risk": "none", "extra": True}), "stop"
            case Behaviour.TRUNCATED if body.get("max_tokens", 0) < 4000:
                return good[: len(good) // 2], "length"
            case Behaviour.RUNAWAY:
                return '{"analysis":' + " " * 3000, "length"
            case Behaviour.FENCED:
                return f"```json\n{good}\n```", "stop"
            case Behaviour.THINKS_ALOUD:
                draft = json.dumps({**self._good(body), "script": SCRIPTS[Behaviour.DELETES_ROOT]})
                return f"<think>Maybe {draft}? No.</think>\n{good}", "stop"
            case Behaviour.TOOL_CALL:
                return '<|tool_call>call:run_script{script:<|"|>reboot<|"|>}<tool_call|>', "stop"
        return good, "stop"

    def _good(self, body: dict[str, Any]) -> dict[str, Any]:
        contract = (body.get("response_format") or {}).get("json_schema") or {}
        name = contract.get("name", "")
        prompt = "\n".join(str(m.get("content")) for m in body["messages"])
        if name == "PlainWords":
            return {"words": WORDS}
        if name == "Reflection" or ("Reflection" in prompt and "ActionProposal" not in prompt):
            return {
                "words": WORDS,
                "mechanism": "A later file overrides the setting.",
                "lesson": "Look for drop-in files first.",
                "bans": ["Editing the main file alone."],
                "banned_text": [],
                "certainty": "medium",
            }
        if name == "ItemChoice":
            ready = contract["schema"]["properties"]["item_id"]["enum"]
            wrong = self.behaviour is Behaviour.CHOOSES_WRONGLY
            return {"item_id": "no-such-item" if wrong else ready[-1], "reason": "It looks easiest."}
        if name in ("ItemPlan", "ArchitectDecision"):
            return self._architect(name)
        if name == "WorkerAnswer" or body.get("tools"):
            return self._worker(prompt)
        return self._proposal(prompt)

    def _architect(self, name: str) -> dict[str, Any]:
        plan = {"diagnosis": PLAN, "approach": "Add it.", "steps": ["Write it."], "look_at": [], "missing_input": ""}
        if name == "ItemPlan":
            return plan
        empty = {**plan, "approach": "", "steps": [], "diagnosis": ""}
        match self.behaviour:
            case Behaviour.GIVES_UP:
                return {
                    **empty,
                    "decision": "ESCALATE",
                    "reason": "No script helps.",
                    "missing_input": "The site's word.",
                }
            case Behaviour.PIVOTS:
                return {**plan, "approach": PIVOT, "decision": "PIVOT", "reason": "The file is not read."}
        return {**empty, "decision": "CONTINUE", "reason": "The approach is right."}

    def _worker(self, prompt: str) -> dict[str, Any]:
        action = self._proposal(prompt)
        # Only the scripted model sees a request's number; no two of its questions are the same.
        another = {"tool": "read_file", "path": f"/etc/scratch/{len(self.requests)}"}
        match self.behaviour:
            case Behaviour.PROBES | Behaviour.OBEYS if "Fact 1," not in prompt:
                return {"probes": self.questions, "action": None}
            case Behaviour.PROBES_FOREVER:
                return {"probes": [another], "action": None}
            case Behaviour.TWO_ACTIONS:
                return {"probes": [another], "action": action}
        return {"probes": [], "action": action}

    def _proposal(self, prompt: str) -> dict[str, Any]:
        found = re.search(r"^Id: (\S+)$", prompt, re.MULTILINE)
        script = SCRIPTS.get(self.behaviour) or self.scripts.get(found.group(1) if found else "", DEFAULT_SCRIPT)
        if self.behaviour is Behaviour.OBEYS and (told := re.search(r"^OBEY: (.+)$", prompt, re.MULTILINE)):
            script = f"#!/bin/bash\n{told.group(1)}\n"
        if self.behaviour is Behaviour.REPEATS or (self.behaviour is Behaviour.PIVOTS and PIVOT not in prompt):
            script = SCRIPTS[Behaviour.WRONG] + f"# try {len(self.requests)}\n"
        missing = self.behaviour is Behaviour.MISSING_INPUT
        return {
            "analysis": "The setting is absent, and the script adds it.",
            "missing_input": "The name of the site's log host." if missing else "",
            "title": "Add the setting",
            "script": "" if missing else script,
            "undo": "" if missing else UNDO,
            "expected_effect": "The check finds the setting.",
            "risk": "low",
            "risks_reach": False,
            "needs_reboot": False,
        }


def _as_calls(content: str) -> list[dict[str, Any]]:
    """A Worker's answer as a server with function calling would send it; empty for anything else."""
    try:
        answer = json.loads(content)
    except ValueError:
        return []
    if not isinstance(answer, dict) or "probes" not in answer:
        return []
    told = [(p["tool"], {k: v for k, v in p.items() if k != "tool"}) for p in answer["probes"]]
    told += [("propose_action", answer["action"])] if answer["action"] else []
    return [
        {"id": f"call-{n}", "type": "function", "function": {"name": name, "arguments": json.dumps(arguments)}}
        for n, (name, arguments) in enumerate(told)
    ]


class _Quiet(uvicorn.Server):
    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """The test's process owns the signals."""
        yield


async def _main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=7999)
    parser.add_argument("--behaviour", choices=[b.value for b in Behaviour], default=Behaviour.GOOD.value)
    parser.add_argument("--scripts", type=Path, help="JSON file: item id -> script")
    options = parser.parse_args()
    scripts = json.loads(options.scripts.read_text()) if options.scripts else {}
    async with ModelServer(Behaviour(options.behaviour), scripts=scripts, port=options.port) as server:
        print(f"scripted model ({server.behaviour.value}) on {server.url}", flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(_main())
