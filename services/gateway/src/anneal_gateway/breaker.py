"""A circuit breaker: a failing upstream is left alone for a while, then asked by one probe. Pure, on a given clock."""

from enum import StrEnum

from anneal_runtime.clock import Clock

from anneal_gateway.errors import CircuitOpen


class CircuitState(StrEnum):
    """What the circuit of an upstream does with a call."""

    CLOSED = "closed"  # lets it through
    OPEN = "open"  # refuses it at once
    HALF_OPEN = "half_open"  # lets one probe through and refuses the others


# Each failed probe doubles the pause, up to this many times the first one.
_MAX_PAUSES = 8


class Breaker:
    """Opens after `failures` bad calls in a row; a call slower than slow_call_s is a bad call although it answered."""

    def __init__(self, name: str, clock: Clock, *, failures: int, slow_call_s: float, open_s: float) -> None:
        self._name = name
        self._clock = clock
        self._failures = failures
        self._slow_call_s = slow_call_s
        self._open_s = open_s
        self._bad = 0
        self._pause = open_s
        self._open_until: float | None = None
        self._probing = False
        self._last = ""

    @property
    def state(self) -> CircuitState:
        if self._open_until is None:
            return CircuitState.CLOSED
        return CircuitState.OPEN if self._clock.monotonic() < self._open_until else CircuitState.HALF_OPEN

    def admit(self) -> "Permit":
        """Permission for one call. Raises CircuitOpen with the seconds to wait."""
        state = self.state
        if state is CircuitState.OPEN or (state is CircuitState.HALF_OPEN and self._probing):
            left = max(1.0, (self._open_until or 0.0) - self._clock.monotonic())
            raise CircuitOpen(
                f"Model server {self._name} is left alone for {left:.0f} s after failing: {self._last}",
                details={"retry_after_s": f"{left:.1f}"},
            )
        probe = state is CircuitState.HALF_OPEN
        self._probing = self._probing or probe
        return Permit(self, probe=probe, started=self._clock.monotonic())

    def _record(self, *, probe: bool, problem: str, seconds: float) -> None:
        if not problem and seconds > self._slow_call_s:
            problem = f"a call took {seconds:.1f} s, more than {self._slow_call_s:.0f} s"
        if probe:
            self._probing = False
        # A call admitted before the circuit opened does not speak for the upstream as it is now.
        if not probe and self._open_until is not None:
            return
        if not problem:
            self._bad, self._pause, self._open_until = 0, self._open_s, None
            return
        self._bad += 1
        self._last = problem
        if probe:
            self._pause = min(2 * self._pause, _MAX_PAUSES * self._open_s)
        if probe or self._bad >= self._failures:
            self._open_until = self._clock.monotonic() + self._pause

    def _withdraw(self, *, probe: bool) -> None:
        if probe:
            self._probing = False


class Permit:
    """One admitted call; exactly one of its methods ends it, later ones do nothing."""

    def __init__(self, breaker: Breaker, *, probe: bool, started: float) -> None:
        self._breaker = breaker
        self._probe = probe
        self._started = started
        self._ended = False

    def answered(self) -> None:
        """The upstream answered, be it with a refusal of the request."""
        self._end("")

    def failed(self, problem: str) -> None:
        """The upstream did not do its work; problem in words."""
        self._end(problem)

    def withdrawn(self) -> None:
        """The call never reached the upstream, or its caller went away: it says nothing about the upstream."""
        if not self._ended:
            self._ended = True
            self._breaker._withdraw(probe=self._probe)

    def _end(self, problem: str) -> None:
        if self._ended:
            return
        self._ended = True
        seconds = self._breaker._clock.monotonic() - self._started
        self._breaker._record(probe=self._probe, problem=problem, seconds=seconds)
