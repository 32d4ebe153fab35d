"""What the users of one load-generating process share during a trial: requests, checks, the record.

The loops live here and not in the Locust users, so that a request costs the exchange itself, one
check of the answer's frame, and four appends.
"""

from __future__ import annotations

import time
from array import array
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

import gevent
import numpy as np
from gevent.event import Event

from bench.core.samples import Outcome, Samples
from bench.loadgen.locust.connections import UserConnection
from bench.loadgen.pacing import Alarm, Tape
from bench.protocols.connection import Reply, outcome_of, reason

# Each different message is kept once; a server that puts a serial number in its errors ends here.
_MOST_MESSAGES = 100
# Of a longer message, such as a whole HTML page, the middle is left out; a status stands at its end.
_LONGEST_MESSAGE, _END_OF_MESSAGE = 300, 60
# A failure that came without waiting for the server is followed by this pause: otherwise a user whose every
# request fails at once would keep the process from everything else.
_PAUSE_S = 0.01


class Recorder:
    """Four columns that grow by appending: 150 ns a value, exact, nothing lost."""

    def __init__(self) -> None:
        self.intended_ns = array("q")
        self.sent_ns = array("q")
        self.done_ns = array("q")
        self.outcome = array("q")
        self.errors: Counter[str] = Counter()

    def __len__(self) -> int:
        return len(self.outcome)

    def add(self, intended_ns: int, sent_ns: int, done_ns: int, outcome: int) -> None:
        self.intended_ns.append(intended_ns)
        self.sent_ns.append(sent_ns)
        self.done_ns.append(done_ns)
        self.outcome.append(outcome)

    def fail(self, message: str) -> str:
        """Count a failure by its message, shortened, and as text that can be written to a file.

        Returns what it was counted as, which is one of a limited number of texts.
        """
        if len(message) > _LONGEST_MESSAGE:
            message = f"{message[: _LONGEST_MESSAGE - _END_OF_MESSAGE]}...{message[-_END_OF_MESSAGE:]}"
        message = message.encode(errors="backslashreplace").decode()
        known = message in self.errors or len(self.errors) < _MOST_MESSAGES
        counted = message if known else "other messages"
        self.errors[counted] += 1
        return counted

    def samples(self) -> Samples:
        """Everything that was recorded."""
        columns = (self.intended_ns, self.sent_ns, self.done_ns, self.outcome)
        return Samples.merge([Samples(*(np.array(column, dtype=np.int64) for column in columns))])


class Tally(Recorder):
    """Counts requests and the messages of failed ones, and keeps none: for load without an end."""

    def __init__(self) -> None:
        super().__init__()
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def add(self, intended_ns: int, sent_ns: int, done_ns: int, outcome: int) -> None:  # noqa: ARG002
        self._count += 1


@dataclass(slots=True)
class Session:
    """`check_every`: the values of one answer in so many are compared; 0: never."""

    check_every: int = 0
    tape: Tape | None = None
    recorder: Recorder = field(default_factory=Recorder)
    gate: Event = field(default_factory=Event)  # opens when the trial starts
    end_ns: int | None = None  # closed loop: no request is started from here on
    values_checked: int = 0
    first_checks: int = 3  # answers whose values are compared whatever `check_every` says
    in_flight: int = 0
    _answers: int = 0

    def run(self, connection: UserConnection) -> None:
        """All requests of one user. Ends by itself; a kill while a request is under way is recorded."""
        self.gate.wait()
        if self.tape is None:
            self._closed_loop(connection)
        else:
            self._open_loop(connection, self.tape)

    def request(self, connection: UserConnection, intended_ns: int | None) -> Reply:
        """One request. `intended_ns` None: it is intended when it is sent (closed loop).

        Whatever goes wrong is its outcome, in the reply and in the record; only a kill is raised.
        """
        started_ns = time.monotonic_ns()
        is_at_once = False
        self.in_flight += 1
        try:
            reply = connection.exchange()
        except Exception as error:  # of any kind: it is this request's failure, and not the end of its user
            reply, is_at_once = _failed(started_ns, error), True
        except BaseException:  # killed in flight: planned, sent, unanswered
            due_ns = started_ns if intended_ns is None else intended_ns
            self.recorder.add(due_ns, started_ns, time.monotonic_ns(), Outcome.UNFINISHED)
            raise
        finally:
            self.in_flight -= 1
        if not reply.outcome:
            reply.outcome, reply.error = self._judge(connection, reply)
        sent_ns = reply.sent_ns
        self.recorder.add(
            sent_ns if intended_ns is None else intended_ns, sent_ns, reply.done_ns, reply.outcome
        )
        if reply.outcome:
            reply.error = self.recorder.fail(reply.error)
        if is_at_once or reply.outcome == Outcome.CLIENT:
            gevent.sleep(_PAUSE_S)
        return reply

    def is_settled(self) -> bool:
        """After the end: nothing in flight, and nothing due that nobody has sent."""
        if self.end_ns is None or time.monotonic_ns() < self.end_ns or self.in_flight:
            return False
        return self.tape is None or not self.tape.untaken_before(self.end_ns)

    def _closed_loop(self, connection: UserConnection) -> None:
        while self.end_ns is None or time.monotonic_ns() < self.end_ns:
            self.request(connection, None)

    def _open_loop(self, connection: UserConnection, tape: Tape) -> None:
        alarm = Alarm()
        try:
            for due_ns in self._arrivals(tape):
                alarm.wait_until(due_ns)
                if self.end_ns is not None and due_ns >= self.end_ns:
                    return
                self.request(connection, due_ns)
        finally:
            alarm.close()

    def _arrivals(self, tape: Tape) -> Iterator[int]:
        while (due_ns := tape.take()) is not None:
            yield due_ns

    def _judge(self, connection: UserConnection, reply: Reply) -> tuple[Outcome, str]:
        """What an answer is worth, and what is wrong with it."""
        try:
            wrong = self._wrong(connection, reply)
        except MemoryError:
            return Outcome.CLIENT, "out of memory while an answer was checked"
        except Exception as error:  # an answer may hold anything, and what cannot be read is wrong
            wrong = f"the answer cannot be read ({type(error).__name__}: {error})"
        return (Outcome.WRONG_ANSWER, wrong) if wrong else (Outcome.OK, "")

    def _wrong(self, connection: UserConnection, reply: Reply) -> str:
        wrong = connection.wrong(reply)
        self._answers += 1
        due = self.check_every and (
            self._answers <= self.first_checks or self._answers % self.check_every == 0
        )
        if wrong or not due:
            return wrong
        self.values_checked += 1
        return connection.wrong_values(reply)


def _failed(sent_ns: int, error: Exception) -> Reply:
    """What an exchange came to that raised."""
    reply = Reply()
    reply.sent_ns, reply.done_ns = sent_ns, time.monotonic_ns()
    reply.outcome, reply.error = outcome_of(error), f"{type(error).__name__}: {reason(error)}"
    return reply
