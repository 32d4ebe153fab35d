"""What users of one process share: the record is complete, whatever happens to a request."""

from __future__ import annotations

import errno
import json
import time
from dataclasses import dataclass, field
from pathlib import Path

import gevent
import pytest

from bench.core.files import write_json
from bench.core.samples import Outcome
from bench.loadgen.locust.request_loop import Recorder, Session
from bench.loadgen.pacing import Tape


@dataclass
class Answer:
    outcome: int
    sent_ns: int
    done_ns: int
    error: str = ""


@dataclass
class ScriptedConnection:
    """A connection whose every request takes the time, and ends the way, its script says."""

    outcomes: list[int] = field(default_factory=lambda: [Outcome.OK])
    takes_s: float = 0.001
    wrong_frame: str = ""
    wrong_value: str = ""
    exchanges: int = 0

    def exchange(self) -> Answer:
        sent_ns = time.monotonic_ns()
        outcome = self.outcomes[self.exchanges % len(self.outcomes)]
        self.exchanges += 1
        gevent.sleep(self.takes_s)
        return Answer(outcome, sent_ns, time.monotonic_ns(), "refused" if outcome else "")

    def wrong(self, _reply: Answer) -> str:
        return self.wrong_frame

    def wrong_values(self, _reply: Answer) -> str:
        return self.wrong_value

    def close(self) -> None: ...


def run_users(session: Session, connections: list[ScriptedConnection], seconds: float) -> None:
    gevent.sleep(0)  # the loop counts timers from when it last ran, which may be tests ago
    users = [gevent.spawn(session.run, connection) for connection in connections]
    session.gate.set()
    if session.tape is None:
        session.end_ns = time.monotonic_ns() + int(seconds * 1e9)
    gevent.joinall(users, timeout=seconds + 5)


def test_a_closed_loop_stops_at_its_end_and_finishes_what_is_under_way() -> None:
    session = Session()
    connections = [ScriptedConnection(takes_s=0.01) for _ in range(3)]
    run_users(session, connections, 0.05)
    samples = session.recorder.samples()
    assert len(samples) == sum(connection.exchanges for connection in connections) > 0
    assert session.end_ns is not None
    assert (samples.sent_ns < session.end_ns).all()
    assert (samples.intended_ns == samples.sent_ns).all()
    assert (samples.outcome == Outcome.OK).all()


def test_an_open_loop_sends_every_arrival_once_however_late() -> None:
    start_ns = time.monotonic_ns()
    due = [i * 1_000_000 for i in range(40)]
    session = Session(tape=Tape(due, start_ns))
    run_users(session, [ScriptedConnection(takes_s=0.005), ScriptedConnection(takes_s=0.005)], 1.0)
    samples = session.recorder.samples()
    assert (
        samples.intended_ns - start_ns
    ).tolist() == due  # two users of 5 ms keep up with 400/s, not 1000/s
    assert (samples.sent_ns >= samples.intended_ns).all()
    assert samples.response_ns.max() > 20_000_000


def test_arrivals_nobody_took_are_told_apart_from_those_beyond_the_end() -> None:
    tape = Tape([10, 20, 30, 40], start_ns=100)
    assert tape.take() == 110
    assert tape.untaken_before(135) == [120, 130]
    assert [tape.take() for _ in range(4)] == [120, 130, 140, None]


def test_a_request_killed_in_flight_is_recorded_as_unfinished() -> None:
    session = Session()
    user = gevent.spawn(session.run, ScriptedConnection(takes_s=10))
    session.gate.set()
    gevent.sleep(0.01)
    user.kill()
    (outcome,) = session.recorder.samples().outcome
    assert outcome == Outcome.UNFINISHED


@pytest.mark.parametrize(
    ("connection", "outcome", "message"),
    [
        (ScriptedConnection(outcomes=[Outcome.SERVER_ERROR]), Outcome.SERVER_ERROR, "refused"),
        (ScriptedConnection(outcomes=[Outcome.TIMEOUT]), Outcome.TIMEOUT, "refused"),
        (ScriptedConnection(wrong_frame="zero bytes"), Outcome.WRONG_ANSWER, "zero bytes"),
        (ScriptedConnection(wrong_value="off by 1"), Outcome.WRONG_ANSWER, "off by 1"),
    ],
)
def test_a_failure_is_data_and_carries_its_message(
    connection: ScriptedConnection, outcome: int, message: str
) -> None:
    session = Session(check_every=1)
    session.request(connection, None)
    assert session.recorder.outcome[0] == outcome
    assert session.recorder.errors == {message: 1}


@pytest.mark.parametrize(
    ("every", "answers", "checked"),
    [(0, 50, 0), (10, 30, 6), (100, 30, 3), (1, 5, 5)],
)
def test_values_are_compared_on_the_first_three_answers_and_then_on_one_in_so_many(
    every: int, answers: int, checked: int
) -> None:
    session = Session(check_every=every)
    connection = ScriptedConnection(takes_s=0)
    for _ in range(answers):
        session.request(connection, None)
    assert session.values_checked == checked


@dataclass
class BrokenConnection(ScriptedConnection):
    """One whose exchange, frame check or value check raises."""

    raises_in: str = "exchange"
    error: Exception = field(default_factory=lambda: OverflowError("cannot convert float infinity"))

    def exchange(self) -> Answer:
        if self.raises_in == "exchange":
            raise self.error
        return super().exchange()

    def wrong(self, reply: Answer) -> str:
        if self.raises_in == "wrong":
            raise self.error
        return super().wrong(reply)

    def wrong_values(self, reply: Answer) -> str:
        if self.raises_in == "wrong_values":
            raise self.error
        return super().wrong_values(reply)


@pytest.mark.parametrize(
    ("raises_in", "error", "outcome"),
    [
        ("exchange", TypeError("a protocol's mistake"), Outcome.CONNECTION),
        ("exchange", MemoryError(), Outcome.CLIENT),
        ("exchange", OSError(errno.EMFILE, "Too many open files"), Outcome.CLIENT),
        ("wrong", OverflowError("cannot convert float infinity to integer"), Outcome.WRONG_ANSWER),
        ("wrong", RecursionError("maximum recursion depth exceeded"), Outcome.WRONG_ANSWER),
        ("wrong_values", ValueError("cannot reshape"), Outcome.WRONG_ANSWER),
        ("wrong_values", MemoryError(), Outcome.CLIENT),
    ],
)
def test_every_exception_in_a_request_is_its_outcome_and_its_user_goes_on(
    raises_in: str, error: Exception, outcome: Outcome
) -> None:
    session = Session(check_every=1)
    run_users(session, [BrokenConnection(raises_in=raises_in, error=error)], 0.05)
    samples = session.recorder.samples()
    assert len(samples) > 1
    assert (samples.outcome == outcome).all()
    assert sum(session.recorder.errors.values()) == len(samples)


def test_a_user_whose_requests_fail_at_once_leaves_time_for_the_others() -> None:
    session = Session()
    connections = [BrokenConnection(), ScriptedConnection(takes_s=0.005)]
    run_users(session, connections, 0.2)
    outcomes = session.recorder.samples().outcome.tolist()
    assert outcomes.count(Outcome.OK) > 3
    assert outcomes.count(Outcome.CONNECTION) <= 25  # a pause of 10 ms each


def test_a_message_of_any_length_and_content_can_be_kept_and_written(tmp_path: Path) -> None:
    recorder = Recorder()
    recorder.fail("\ud800 was refused")
    recorder.fail(f"{'<p>' * 10_000} (HTTP 502)")
    assert all(len(message) < 400 for message in recorder.errors)
    assert any(message.endswith("(HTTP 502)") for message in recorder.errors)
    write_json(tmp_path / "trial.json", dict(recorder.errors))
    assert json.loads((tmp_path / "trial.json").read_text(encoding="utf-8")) == recorder.errors


def test_endless_different_messages_do_not_fill_the_memory() -> None:
    recorder = Recorder()
    for i in range(1000):
        recorder.fail(f"request {i} refused")
    assert len(recorder.errors) <= 101
    assert sum(recorder.errors.values()) == 1000
