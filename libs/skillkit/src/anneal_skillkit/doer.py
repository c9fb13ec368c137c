"""What workers and evaluators share as processes: their settings, and how they take in one class of work."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

from anneal_contracts.work import WorkClass
from anneal_runtime.bus import WORK, Bus, Message, Redelivery
from anneal_runtime.settings import ServiceSettings
from pydantic import Field

from anneal_skillkit.bench import Handler, Workbench

# A killed doer's command goes to the next one after this silence; heartbeats prolong it while one works.
ACK_WAIT_S = 6.0

_Wait = Annotated[float, Field(ge=0, le=3600)]


class DoerSettings(ServiceSettings):
    """What a process that carries out commands may be told, beside what every service is told."""

    supervisor_addr: str = Field(description="host:port of the supervisor.")
    checkpoint_addr: str = Field(description="host:port of the checkpoint service.")
    skills_dir: Path = Field(description="Folder with one folder a skill.")
    home: Path = Field(description="Data folder; skills keep what they can rebuild below it.")
    retry_waits_s: tuple[_Wait, ...] = Field(
        default=(10.0, 30.0, 60.0),
        max_length=10,
        description="Seconds before a command that failed in a way worth retrying is delivered again, one number a "
        "redelivery. Long enough for a restart of a service, and in the end for one of a host.",
    )


async def take_in(
    bus: Bus,
    bench: Workbench,
    work_class: WorkClass,
    handlers: Mapping[str, Handler],
    *,
    concurrency: int,
    retry_waits_s: tuple[float, ...],
) -> None:
    """Takes commands of one class in, from a queue of its own that shares nothing with the other classes."""

    async def handle(message: Message) -> None:
        await bench.handle(message, handlers)

    await bus.consume(
        stream=WORK.name,
        durable=work_class.value,
        subjects=[work_class.subjects],
        handler=handle,
        concurrency=concurrency,
        ack_wait_s=ACK_WAIT_S,
        redelivery=Redelivery(waits_s=retry_waits_s),
        on_poison=bench.park,
    )
