"""Defects of one line that a careless change could bring in, and the tests that must find them.

When the code moves, a mutant moves along: it breaks the same promise where the code is then.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Mutant:
    """A defect.

    Attributes:
        name: for the table that is printed, and to run it alone.
        promise: the promise that it breaks.
        old: a text that occurs exactly once in the sources of all packages.
        new: the text in its place.
        tests: the tests that are concerned, as pytest takes them.
        unit: whether only tests of this implementation find it, and none of the contract.
    """

    name: str
    promise: str
    old: str
    new: str
    tests: tuple[str, ...]
    unit: bool = False

    def find(self, sources: Mapping[Path, str]) -> Path:
        """Returns the file that the old text is in.

        Raises:
            LookupError: the text is nowhere, or more than once.
        """
        count = sum(text.count(self.old) for text in sources.values())
        if count != 1:
            raise LookupError(
                f"The mutant {self.name} must be moved along: its old text occurs {count} times in "
                f"the sources. Break the same promise where the code is now: {self.promise}"
            )
        return next(path for path, text in sources.items() if self.old in text)


def read_sources(tree: Path) -> dict[Path, str]:
    """Returns the code of all packages of a tree."""
    return {path: path.read_text() for path in tree.glob("wool-*/src/**/*.py")}


MUTANTS = (
    # The protocol -------------------------------------------------------------------------------
    Mutant(
        name="credit-not-given-back",
        promise="The receiver of a large payload gives credit for what it has taken.",
        old="f.Credit(ident, inbound.unacknowledged)",
        new="f.Credit(ident, 0)",
        tests=("tests/faults/test_volume.py::test_large_argument_on_every_transport",),
    ),
    Mutant(
        name="variable-waits-for-values",
        promise="A variable set beside values that have arrived is sent with the next step.",
        old="        if self._shared.changed():\n            return False\n",
        new="",
        tests=("tests/contract/test_prefetch.py::test_a_variable_set_between_steps",),
    ),
    Mutant(
        name="credit-between-payloads-lost",
        promise="Credit that comes while no payload is under way counts for the next one.",
        old="self._credit[ident] = self._credit.get(ident, self._window) + frame.amount",
        new="pass",
        tests=("tests/contract/test_generators.py::test_large_items",),
    ),
    Mutant(
        name="payload-overtaken",
        promise="Frames about a call that follow a large payload of it stay behind it.",
        old="if outbound is None or (kind is f.Cancel and not outbound.after):",
        new="if True:",
        tests=("tests/unit/test_protocol_connection.py", "tests/contract/test_prefetch.py"),
    ),
    Mutant(
        name="incomplete-call-not-given-back",
        promise="A call that is cancelled before all of it has arrived is given back at once.",
        old="release(inbound.frame)\n        self.send(f.GiveBack([frame.call], 0))\n",
        new="release(inbound.frame)\n",
        tests=("tests/contract/test_cancellation.py",),
    ),
    Mutant(
        name="late-cancel-is-an-error",
        promise="A cancel that crosses a value of a stream is ignored, not a breach of protocol.",
        old="        f.Cancel: State.SUSPENDED,\n",
        new="",
        tests=("tests/contract/test_generator_throwing.py",),
    ),
    Mutant(
        name="call-opened-twice",
        promise="A peer cannot open a call under a number that it has used.",
        old=" or frame.call <= self._last_theirs:",
        new=":",
        tests=("tests/security/test_callers.py",),
    ),
    # Security -----------------------------------------------------------------------------------
    Mutant(
        name="proof-without-role",
        promise="A proof cannot be sent back to the peer that made it.",
        old="text = _LABEL[role] +",
        new="text = _LABEL[Role.DIALLER] +",
        tests=("tests/security/test_secrets.py::test_a_false_worker",),
    ),
    Mutant(
        name="proof-without-channel",
        promise="A proof counts for one channel only, so nobody can listen in between.",
        old="text + self._binding",
        new="text",
        tests=("tests/security/test_middle.py",),
    ),
    Mutant(
        name="proof-compared-in-part",
        promise="A proof has to be right to the last byte.",
        old="hmac.compare_digest(proof.mac, self._mac(other))",
        new="hmac.compare_digest(proof.mac[:1], self._mac(other)[:1])",
        tests=("tests/unit/test_protocol_handshake.py",),
        unit=True,
    ),
    Mutant(
        name="proof-compared-in-varying-time",
        promise="The time of a comparison does not tell how much of a proof is right.",
        old="if not hmac.compare_digest(proof.mac, self._mac(other)):",
        new="if proof.mac != self._mac(other):",
        tests=("tests/unit/test_protocol_handshake.py",),
        unit=True,
    ),
    Mutant(
        name="stranger-may-send-much",
        promise="A peer that has not authenticated itself cannot make this side hold much.",
        old="            if handshake.complete:  # and",
        new="            if True:  # and",
        tests=("tests/security/test_strangers.py::test_a_large_proof",),
    ),
    Mutant(
        name="user-not-checked",
        promise="A worker of a Unix socket serves processes of its own user only.",
        old="        if uid != os.geteuid():",
        new="        if False:",
        tests=("tests/security/test_users.py", "tests/unit/test_security.py"),
    ),
    Mutant(
        name="insecure-beyond-loopback",
        promise="Without authentication there are connections on the loopback interface only.",
        old="isinstance(self.network, Insecure) and host_of(address) and not is_loopback(address)",
        new="False",
        tests=(
            "tests/integration/test_worker.py::test_insecure_is_for_loopback_and_loud",
            "tests/integration/test_worker.py::test_insecure_pools_stay_on_this_machine",
        ),
    ),
    # Calls, at the caller -----------------------------------------------------------------------
    Mutant(
        name="cancel-not-sent",
        promise="A cancel of the caller reaches the routine.",
        old="            self.session.send(f.Cancel(call.number, call.awaited, message))",
        new="            pass",
        tests=("tests/contract/test_cancellation.py",),
    ),
    Mutant(
        name="cancel-without-message",
        promise="A cancel arrives with its message.",
        old="    if not error.args:\n",
        new="    if True:\n",
        tests=("tests/contract/test_cancellation.py",),
    ),
    Mutant(
        name="uncancel-not-mirrored",
        promise="A cancel that the routine has uncancelled is uncancelled at the caller.",
        old="        return max(0, self.delivered - self._pending(self.task))\n",
        new="        return 0\n",
        tests=("tests/contract/test_cancellation.py", "tests/contract/test_timeouts.py"),
    ),
    Mutant(
        name="context-of-cancelled-step-lost",
        promise="Context variables that a cancelled step has set are set at the caller.",
        old="Cancelled(error, type(frame) is request.opens, outcome.context)",
        new="Cancelled(error, type(frame) is request.opens)",
        tests=("tests/contract/test_context.py", "tests/contract/test_context_programs.py"),
    ),
    Mutant(
        name="unstarted-call-always-taken",
        promise="A call passed to one that never begins can be used again.",
        old="taken=self.number != 0 and not isinstance(outcome, NotStarted)",
        new="taken=True",
        tests=("tests/contract/test_pipelines.py",),
    ),
    Mutant(
        name="outcome-lies",
        promise="The outcome of a call whose worker was lost is unknown, unless it never began.",
        old='outcome: Outcome = "unknown"',
        new='outcome: Outcome = "not started"',
        tests=("tests/faults/test_worker_death.py::test_killed_in_the_middle_of_a_call",),
    ),
    Mutant(
        name="call-of-lost-worker-runs-again",
        promise="A call that may have begun is never made again.",
        old="            self._client.lost(self.info, lost, error, stopped=self.draining)\n",
        new="            [self._client.submit(call) for call in lost]\n",
        tests=("tests/faults/test_worker_death.py::test_killed_in_the_middle_of_a_call",),
    ),
    Mutant(
        name="cancelled-call-placed-anew",
        promise="A cancelled call that a worker gives back goes to no other worker.",
        old="        if call.cancelled:\n",
        new="        if False:\n",
        tests=(
            "tests/contract/test_cancellation.py",
            "tests/faults/test_blocking.py::test_cancels_after_calls_one_by_one",
        ),
    ),
    Mutant(
        name="recalls-once-only",
        promise="Calls that wait behind a long one move to an idle worker, again and again.",
        old="        self.recalling = False\n",
        new="        pass\n",
        tests=("tests/faults/test_late_binding.py::test_short_calls_get_past_a_long_one",),
    ),
    Mutant(
        name="begun-calls-counted-for-ever",
        promise="A caller knows how many of its calls have not begun.",
        old="            self._begun -= 1\n",
        new="            pass",
        tests=("tests/faults/test_late_binding.py::test_short_calls_get_past_a_long_one",),
    ),
    Mutant(
        name="abandoned-stream-left-open",
        promise="A stream that nobody waits for any more is closed when its value arrives.",
        old="                if call.abandoned:\n",
        new="                if False:\n",
        tests=("tests/faults/test_bad_routines.py::test_value_that_comes_after_the_grace",),
    ),
    Mutant(
        name="drained-worker-stays-drained",
        promise="A worker in place of one that has drained is a worker as any other.",
        old="        self.draining = False\n        self.load =",
        new="        self.load =",
        tests=(
            "tests/integration/test_worker.py::test_one_in_place_of_another_that_was_told_to_stop",
        ),
    ),
    # Calls, at the worker -----------------------------------------------------------------------
    Mutant(
        name="claim-dropped",
        promise="A call that has begun is not given back, and so begins once at most.",
        old="execution = self.pending.pop(self._order.popleft(), None)",
        new="execution = self.pending.get(self._order.popleft())",
        tests=(
            "tests/contract/test_cancellation.py",
            "tests/faults/test_late_binding.py::test_short_calls_get_past_a_long_one",
        ),
    ),
    Mutant(
        name="slot-held-while-waiting",
        promise="A call that waits for another one leaves its slot to it.",
        old="        if self._outstanding == 1 and self.state is State.RUNNING:\n",
        new="        if False:\n",
        tests=("tests/faults/test_volume.py::test_fib_12_with_one_call_at_a_time",),
    ),
    Mutant(
        name="slot-not-taken-back",
        promise="No more calls run at once than the concurrency allows.",
        old="        if self._outstanding == 0 and self.state is State.RUNNING:\n",
        new="        if False:\n",
        tests=("tests/faults/test_volume.py::test_concurrency_is_kept",),
    ),
    Mutant(
        name="slot-exhausted",
        promise="A call that ends frees its slot.",
        old="        if self._outstanding == 0:\n            executor.leave()\n",
        new="        pass\n",
        tests=("tests/faults/test_volume.py::test_concurrency_is_kept",),
    ),
    Mutant(
        name="context-shared-by-calls",
        promise="Each call has a context of its own.",
        old="execution.context = context = self._context.copy()",
        new="execution.context = context = self._context",
        tests=("tests/contract/test_context.py", "tests/contract/test_call.py"),
    ),
    Mutant(
        name="calls-outlive-their-caller",
        promise="The calls of a caller that has gone are cancelled.",
        old="                self.on_user(call.abandon)\n",
        new="                pass\n",
        tests=(
            "tests/faults/test_worker_death.py::test_calls_that_a_killed_worker_has_made_are_cancelled",
        ),
    ),
    Mutant(
        name="drain-gives-nothing-back",
        promise="A worker that drains gives back the calls that have not begun.",
        old="            self._give_back(waiting, recalled=False)\n",
        new="            pass",
        tests=(
            "tests/integration/test_drain.py",
            "tests/faults/test_blocking.py::test_drain_while_blocked",
        ),
    ),
    Mutant(
        name="nested-calls-refused-in-drain",
        promise="A routine that runs on a worker that drains can still call.",
        old="        return not frame.parent.startswith",
        new="        return True  # not",
        tests=(
            "tests/integration/test_drain.py::test_sigterm_before_a_nested_call",
            "tests/integration/test_wool_worker.py::test_asked_to_leave_it_runs_what_its_calls_call",
        ),
    ),
    Mutant(
        name="prefetch-window-stays-shut",
        promise="A stream runs ahead again when its consumer has taken large values.",
        old="            self._bytes -= self._sizes.popleft()\n",
        new="            self._sizes.popleft()\n",
        tests=("tests/contract/test_prefetch.py",),
    ),
    Mutant(
        name="closed-stream-yields",
        promise="A value that was under way when a stream was closed is dropped.",
        old="        if isinstance(frame, f.Value) and frame.step < self._closing:\n",
        new="        if False:\n",
        tests=("tests/contract/test_prefetch.py",),
    ),
    Mutant(
        name="value-sent-without-its-context",
        promise="What a step sets holds for the consumer when it takes the value of that step.",
        old=" or encoded.calls or encoded.context)\n",
        new=" or encoded.calls)\n",
        tests=("tests/contract/test_prefetch.py",),
    ),
    # Live objects -------------------------------------------------------------------------------
    Mutant(
        name="release-not-sent",
        promise="An object that is lent is let go when nobody uses it any more.",
        old="        if lent:\n            session.send(f.Release(lent))\n",
        new="",
        tests=("tests/contract/test_references.py",),
    ),
    Mutant(
        name="released-too-early",
        promise="An object stays lent while a mention of it is under way.",
        old="                if mentions > lent.times:\n",
        new="                if False:\n",
        tests=("tests/contract/test_references.py", "tests/contract/test_reference_machine.py"),
    ),
    Mutant(
        name="use-outlives-its-user",
        promise="The use of an object ends when the process that uses it is gone.",
        old="            if isinstance(call, IncomingUse):\n                call.abandon()\n",
        new="            pass",
        tests=(
            "tests/faults/test_reference_faults.py::test_the_user_is_killed_in_a_step",
            "tests/faults/test_reference_faults.py::test_the_user_is_killed_between_steps",
        ),
    ),
    # Values and code ----------------------------------------------------------------------------
    Mutant(
        name="variable-not-restored",
        promise="A context variable that a routine resets has its old value at the caller.",
        old="            if variable in self._given:\n",
        new="            if False:\n",
        tests=("tests/contract/test_context.py",),
    ),
    Mutant(
        name="variable-not-unset",
        promise="A context variable that has no value any more has none on the other side.",
        old="        if kind == f.UNSET:\n            self._unset(variable)\n",
        new="        if kind == f.UNSET:\n            pass\n",
        tests=("tests/contract/test_context.py",),
    ),
    Mutant(
        name="digest-of-the-beginning",
        promise="Code is known by all that it says.",
        old="hashlib.blake2b(data, digest_size=16).digest()",
        new="hashlib.blake2b(data[:64], digest_size=16).digest()",
        tests=("tests/contract/test_functions.py",),
    ),
    Mutant(
        name="redefinition-not-noticed",
        promise="A helper that is defined anew takes effect at the next call.",
        old="            if scope.get(name, _MISSING) is not expected():\n",
        new="            if False:\n",
        tests=("tests/contract/test_redefinition.py",),
    ),
    Mutant(
        name="class-made-twice",
        promise="A class that travels by value is one class in each process.",
        old="            cls = self._get(key)\n            if cls is None:\n",
        new="            cls = None\n            if cls is None:\n",
        tests=("tests/contract/test_main.py", "tests/contract/test_definitions.py"),
    ),
    # Pool, settings and plug-ins ----------------------------------------------------------------
    Mutant(
        name="drained-worker-replaced-late",
        promise="A worker that drains is replaced at once, not when its last call has ended.",
        old="[leaving, exited], return_when=asyncio.FIRST_COMPLETED",
        new="[leaving, exited], return_when=asyncio.ALL_COMPLETED",
        tests=("tests/integration/test_drain.py", "tests/integration/test_rolling.py"),
    ),
    Mutant(
        name="settings-in-the-wrong-order",
        promise="An argument goes before the environment, and that before the file.",
        old="        return values[0]\n",
        new="        return values[-1]\n",
        tests=("tests/integration/test_settings_in_use.py",),
    ),
    Mutant(
        name="first-registered-wins",
        promise="Of two plug-ins of one name the one that was registered last is taken.",
        old="        self._registered = (registered, *self._registered)\n",
        new="        self._registered = (*self._registered, registered)\n",
        tests=("tests/integration/test_third_transport.py",),
    ),
    # Transports and discoveries -----------------------------------------------------------------
    Mutant(
        name="unix-rest-not-written",
        promise="The rest that a full socket does not take at once is written later.",
        old="            self._rest += data[written:]\n",
        new="            self._rest += b''\n",
        tests=(
            "tests/unit/test_transport_kit.py::TestUnix",
            "tests/unit/test_unix.py",
        ),
    ),
    Mutant(
        name="unix-reads-without-end",
        promise="A peer that sends faster than it is listened to is slowed down.",
        old="                self._transport.pause_reading()\n",
        new="                pass\n",
        tests=("tests/unit/test_transport_kit.py::TestUnix",),
    ),
    Mutant(
        name="grpc-queues-without-end",
        promise="A sender that is faster than its peer has to wait.",
        old="            self._full = self.get_write_buffer_size() > QUEUE\n",
        new="            self._full = False\n",
        tests=("tests/unit/test_grpc.py::TestTcp",),
    ),
    Mutant(
        name="ws-stranger-may-flood",
        promise="A stranger that sends thousands of messages at once is cut off.",
        old="        if len(messages) > FLOOD and self._is_stranger:\n",
        new="        if False:\n",
        tests=("tests/unit/test_ws.py::test_a_stranger_that_sends_thousands_of_messages",),
        unit=True,
    ),
    Mutant(
        name="shm-dead-workers-stay",
        promise="The workers of a process that was killed are gone for all who watch.",
        old="        alive = not _locks(descriptor, fcntl.LOCK_SH)\n",
        new="        alive = True\n",
        tests=("tests/unit/test_discovery_kit.py::TestShm",),
    ),
    Mutant(
        name="zeroconf-goodbye-undone",
        promise="Late copies of what a worker told before its goodbye do not bring it back.",
        old="            self._gone[name] = known.revision, GHOSTS\n",
        new="            pass",
        tests=("tests/unit/test_zeroconf.py::test_answers_that_come_after_the_goodbye",),
        unit=True,
    ),
    Mutant(
        name="busy-worker-retired",
        promise="A worker leaves a pool that shrinks only if it has nothing to do nor to keep.",
        old="            if not self._has_calls():\n                for",
        new="            if not self.executor.pending:\n                for",
        tests=("tests/integration/test_elastic.py::test_a_worker_that_is_asked_to_leave",),
    ),
    Mutant(
        name="grown-for-a-moment",
        promise="Calls that wait for a moment only have no worker started.",
        old="needed, self._before = min(demand.busy + more, self._before)",
        new="needed, self._before = max(demand.busy + more, self._before)",
        tests=("tests/unit/test_scaling.py",),
        unit=True,
    ),
)
