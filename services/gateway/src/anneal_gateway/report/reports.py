"""Collects what a report needs from the services that own it, and renders it."""

import asyncio
import json
import logging
from collections.abc import Iterable

from anneal.common.v1.common_pb2 import Event
from anneal.evaluator.v1 import evaluator_pb2 as ev
from anneal.supervisor.v1 import supervisor_pb2 as sv
from anneal_contracts.canonical import canonical_json
from anneal_runtime.errors import AnnealError, InvalidArgument, NotFound

from anneal_gateway.clients import Clients
from anneal_gateway.report.document import Document, held_back, run_document
from anneal_gateway.report.html import Extras, render_html
from anneal_gateway.report.scripts import script_of

log = logging.getLogger(__name__)

# Blobs are fetched a few at a time: a report must not crowd out the runs.
_AT_ONCE = 8


class Reports:
    """Reports of a run; everything is read afresh, nothing is kept."""

    def __init__(self, clients: Clients) -> None:
        self._clients = clients

    async def run(self, run_id: str) -> tuple[sv.Run, ev.Baseline | None]:
        """The run with its baseline filled in where one was measured for its kind of machine. Raises NotFound."""
        if not run_id:
            raise InvalidArgument("is required", field="run_id")
        run = (await self._clients.supervisor.GetRun(sv.GetRunRequest(run_id=run_id))).run
        baseline = await self._baseline(run)
        if baseline is not None:
            run.score.baseline.CopyFrom(baseline.after)
        return run, baseline

    async def render(self, run_id: str, fmt: str) -> tuple[bytes, str]:
        """Content and media type of a report. Raises InvalidArgument for a format that nobody knows."""
        if fmt == "json":
            run, _ = await self.run(run_id)
            return json.dumps(run_document(run), indent=2, ensure_ascii=False).encode() + b"\n", "application/json"
        if fmt == "jsonl":
            return await self._log_lines(run_id), "application/jsonl"
        if fmt in ("", "html"):
            return await self._page(run_id), "text/html; charset=utf-8"
        answer = await self._clients.evaluator.Export(ev.ExportRequest(run_id=run_id, format=fmt), timeout=120)
        return answer.content, answer.media_type

    async def _page(self, run_id: str) -> bytes:
        run, baseline = await self.run(run_id)
        document = run_document(run)
        verified = await self._clients.supervisor.VerifyRun(sv.VerifyRunRequest(run_id=run_id), timeout=120)
        scripts = await self._scripts(_blobs(document))
        return render_html(document, Extras(scripts=scripts, baseline=baseline, verified=verified)).encode()

    async def _baseline(self, run: sv.Run) -> ev.Baseline | None:
        if not run.fingerprint:
            return None
        request = ev.GetBaselineRequest(skill=run.spec.skill, profile=run.spec.profile, fingerprint=run.fingerprint)
        try:
            answer = await self._clients.evaluator.GetBaseline(request, timeout=5)
        except AnnealError as e:
            # A run can be looked at without its neighbour: the evaluator may be down just now.
            log.warning("No baseline for a run: %s", e, extra={"run_id": run.run_id})
            return None
        return answer.baseline if answer.HasField("baseline") else None

    async def _log_lines(self, run_id: str) -> bytes:
        lines = []
        async for answer in self._clients.supervisor.ReadEvents(sv.ReadEventsRequest(run_id=run_id), timeout=120):
            lines.append(event_line(answer.event))
        if not lines:
            raise NotFound(f"There is no run {run_id!r}.", field="run_id")
        return b"".join(lines)

    async def _scripts(self, blobs: Iterable[str]) -> dict[str, str]:
        """Blob -> script. A blob that is gone is left out; the page says so where it would stand."""
        gate = asyncio.Semaphore(_AT_ONCE)

        async def fetch(sha: str) -> tuple[str, str]:
            async with gate:
                try:
                    answer = await self._clients.supervisor.GetBlob(sv.GetBlobRequest(sha256=sha))
                except NotFound:
                    return sha, ""
            return sha, script_of(answer.content)

        return {sha: text for sha, text in await asyncio.gather(*(fetch(sha) for sha in blobs)) if text}


def event_line(event: Event) -> bytes:
    """An event as the log has it, in canonical JSON: whoever has the lines can check the chain without us."""
    fields = {
        "run_id": event.run_id,
        "seq": event.seq,
        "at": event.at_unix_s,
        "type": event.type,
        "actor": event.actor,
        "payload": json.loads(event.payload_json),
        "prev_hash": event.prev_hash,
        "hash": event.hash,
    }
    return canonical_json(fields) + b"\n"


def _blobs(document: Document) -> set[str]:
    """Every script that the page shows: what ran, what was held back, and for a dry run what would have run."""
    items = document["items"]
    ran = {attempt["blob"] for item in items for attempt in item["story"]}
    kept_back = {action["blob"] for item in items for action in held_back(item)}
    planned = {action["blob"] for item in items for action in item["plan"]}
    return (ran | kept_back | (planned if document["limits"]["dry_run"] else set())) - {""}
