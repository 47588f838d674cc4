"""What must hold of the bounds around a decoder that hangs, crashes or grows."""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import subprocess
import sys
import textwrap
import threading
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from support.corpus import encoded, quarters, zoo
from verger.features import isolate
from verger.features.isolate import deadline, decode_apart
from verger.features.preprocess import DecodeError, decode_photo
from verger.features.preprocess.pillow import pillow_settings
from verger.schema import Reason

ZOO = zoo()
JPEG = ZOO["JPEG baseline"].content
CUT = encoded(Image.effect_noise((64, 64), 50), "JPEG")[:-500]


@pytest.fixture
def decoder(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], Any]], None]:
    """Let a test say what the decoder does."""

    def replace(does: Callable[[], Any]) -> None:
        monkeypatch.setattr(isolate, "decode_photo", lambda content, **options: does())

    return replace


def error_apart(**options: Any) -> DecodeError:
    with pytest.raises(DecodeError) as caught:
        decode_apart(JPEG, **{"size": 8, "timeout_s": 20.0} | options)
    return caught.value


# ---- decode_apart --------------------------------------------------------------------------


@pytest.mark.parametrize("name", list(ZOO)[::5])
def test_a_photo_decoded_apart_is_the_same(name: str) -> None:
    """Pixels, sizes and mark are those of the decoder in this process."""
    here = decode_photo(ZOO[name].content, size=224)
    apart = decode_apart(ZOO[name].content, size=224, timeout_s=20)
    np.testing.assert_array_equal(apart.pixels, here.pixels)
    assert apart.pixels.dtype == np.uint8
    assert (apart.width, apart.height) == (here.width, here.height)
    assert apart.truncated is False


@pytest.mark.parametrize("content", [b"", b"text", CUT, JPEG[:-2], ZOO["GIF P"].content[:90]])
def test_errors_come_back_with_their_reason_and_detail(content: bytes) -> None:
    """A photo that is rejected apart is rejected in the words of the decoder."""
    with pytest.raises(DecodeError) as here:
        decode_photo(content, size=8)
    with pytest.raises(DecodeError) as apart:
        decode_apart(content, size=8)
    assert apart.value.reason is here.value.reason
    assert apart.value.detail == here.value.detail


def test_options_reach_the_decoder() -> None:
    """``max_pixels`` and ``accept_truncated`` hold apart as they do here."""
    assert error_apart(max_pixels=100).reason is Reason.TOO_MANY_PIXELS
    assert decode_apart(CUT, size=8, accept_truncated=True).truncated is True


def test_a_decoder_that_never_returns_is_a_time_out(decoder: Any) -> None:
    """A decoder that loops for ever is killed at its time-out, and its photo may be tried again."""
    decoder(lambda: [None for _ in iter(int, 1)])
    started = time.monotonic()
    err = error_apart(timeout_s=0.2)
    assert time.monotonic() - started < 10
    assert err.reason is Reason.DECODE_TIMEOUT
    assert err.detail == "the decoder took longer than 0.2 s"
    assert err.reason.may_pass


def test_a_decoder_that_dies_is_a_crash(decoder: Any) -> None:
    """A decoder that reads where it must not ends its child, and nothing else."""
    decoder(lambda: ctypes.string_at(0))
    err = error_apart()
    assert err.reason is Reason.DECODER_CRASHED
    assert err.detail == f"the decoder died by signal {int(signal.SIGSEGV)}"


def test_a_decoder_that_ends_its_process_is_a_crash(decoder: Any) -> None:
    """A child that is gone without an answer is told as such."""
    decoder(lambda: os._exit(0))
    err = error_apart()
    assert err.reason is Reason.DECODER_CRASHED
    assert err.detail == "the decoder ended without an answer"


def test_a_decoder_that_grows_is_out_of_memory(decoder: Any) -> None:
    """A decoder that allocates for ever comes to the bound of its address space."""

    def grow() -> None:
        held = []
        while True:
            held.append(bytes(64 << 20))

    decoder(grow)
    err = error_apart(max_pixels=1)
    assert err.reason is Reason.TOO_MANY_PIXELS
    assert err.detail == "out of memory while decoding"


def test_the_bound_leaves_room_for_the_largest_photo(decoder: Any) -> None:
    """Within 24 bytes a pixel of the largest photo nothing is refused."""
    photo = decode_photo(JPEG, size=8)

    def take() -> Any:
        assert len(bytes(24 * 50_000_000)) > 0
        return photo

    decoder(take)
    assert decode_apart(JPEG, size=8, max_pixels=50_000_000).width == photo.width


def test_the_bound_is_the_childs_alone() -> None:
    """Neither the limit nor a timer is left in this process."""
    before = resource.getrlimit(resource.RLIMIT_AS), signal.getitimer(signal.ITIMER_REAL)[0] > 0
    decode_apart(JPEG, size=8, timeout_s=5)
    after = resource.getrlimit(resource.RLIMIT_AS), signal.getitimer(signal.ITIMER_REAL)[0] > 0
    assert after == before


def test_a_progressive_jpeg_of_many_scans_is_a_time_out() -> None:
    """A file of 200 kB that keeps libjpeg busy for minutes is given up in time."""
    content = encoded(quarters(size=(2000, 2000)), "JPEG", progressive=True)
    last_scan = content[content.rindex(b"\xff\xda") : -2]
    hostile = content[:-2] + last_scan * 20_000 + content[-2:]
    started = time.monotonic()
    with pytest.raises(DecodeError) as caught:
        decode_apart(hostile, size=8, timeout_s=0.5)
    assert caught.value.reason is Reason.DECODE_TIMEOUT
    assert time.monotonic() - started < 10


def test_200_photos_leave_no_descriptor_and_no_zombie() -> None:
    """After 200 calls, good, bad and crashed, as many descriptors are open, and no child is."""

    def n_open() -> int:
        return len(list(Path("/proc/self/fd").iterdir()))

    decode_apart(JPEG, size=8)
    before, others = n_open(), _children()
    for number in range(200):
        if number % 2:
            decode_apart(JPEG, size=8, timeout_s=20)
        else:
            with pytest.raises(DecodeError):
                decode_apart(CUT, size=8, timeout_s=20)
    assert n_open() == before
    assert _children() == others


def _children() -> list[str]:
    """List the children of this process; other tests may have left a JVM among them."""
    return Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()


def test_a_failure_while_waiting_leaves_no_child(
    decoder: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the parent is interrupted the child is killed and reaped."""
    decoder(lambda: time.sleep(600))

    def interrupt(reader: int, timeout_s: float | None) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(isolate, "_read_answer", interrupt)
    others = _children()
    started = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        decode_apart(JPEG, size=8)
    assert time.monotonic() - started < 10
    assert _children() == others


def test_threads_decode_apart_at_the_same_time() -> None:
    """From several threads every photo comes back, and Python's warning of fork() is silent."""
    expected = decode_photo(JPEG, size=16).pixels
    found: list[Any] = []

    def work() -> None:
        found.extend(decode_apart(JPEG, size=16, timeout_s=60).pixels for _ in range(5))

    threads = [threading.Thread(target=work) for _ in range(4)]
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # Python 3.12 warns of fork() beside threads
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(found) == 20
    for pixels in found:
        np.testing.assert_array_equal(pixels, expected)


def test_a_child_does_not_wait_for_a_lock_of_another_thread() -> None:
    """A photo is decoded apart while another thread is in the decoder, for however long."""
    with pillow_settings(10**6, load_truncated=False):
        assert decode_apart(JPEG, size=8, timeout_s=20).width == 48


def test_a_child_outlives_no_parent() -> None:
    """A child whose parent was killed ends by its own alarm, a second after its time-out."""
    program = """
        import os, sys, time
        from verger.features import isolate
        def hang(content, **options):
            print(os.getpid(), flush=True)
            while True:
                pass
        isolate.decode_photo = hang
        isolate.decode_apart(b"x", size=8, timeout_s=0.5)
    """
    command = [sys.executable, "-c", textwrap.dedent(program)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        parent.kill()
    end = time.monotonic() + 20
    while Path(f"/proc/{child}").exists() and _state(child) != "Z":
        assert time.monotonic() < end
        time.sleep(0.05)


def _state(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return "Z"


# ---- deadline ------------------------------------------------------------------------------


def run_with_deadline(block: str) -> tuple[int, float]:
    imports = "import ctypes, time\nfrom verger.features.isolate import deadline"
    program = f"{imports}\n{textwrap.dedent(block)}"
    started = time.monotonic()
    done = subprocess.run([sys.executable, "-c", program], timeout=60, check=False)
    return done.returncode, time.monotonic() - started


def test_deadline_ends_a_process_that_c_code_holds() -> None:
    """A call that neither returns nor gives the interpreter back is ended by the kernel."""
    status, took_s = run_with_deadline(
        """
        with deadline(0.3):
            ctypes.PyDLL(None).sleep(100)  # holds the interpreter, as a decoder may
        """
    )
    assert status == -signal.SIGALRM
    assert took_s < 30


def test_deadline_is_over_with_its_block() -> None:
    """Nothing happens after a block that was in time, whether it raised or not."""
    status, _ = run_with_deadline(
        """
        for _ in range(3):
            try:
                with deadline(0.2):
                    raise ValueError
            except ValueError:
                pass
        time.sleep(0.4)
        """
    )
    assert status == 0


def test_deadline_puts_the_earlier_handler_and_timer_back() -> None:
    """A timer and handler from before run on afterwards, with the time that was left."""
    rung = []
    before = signal.setitimer(signal.ITIMER_REAL, 0)
    handler = signal.signal(signal.SIGALRM, lambda *_: rung.append(time.monotonic()))
    try:
        started = time.monotonic()
        signal.setitimer(signal.ITIMER_REAL, 0.3)
        with deadline(30):
            time.sleep(0.1)
        left_s, _ = signal.getitimer(signal.ITIMER_REAL)
        assert 0 < left_s < 0.25
        while not rung:
            assert time.monotonic() - started < 10
            time.sleep(0.01)
        assert rung[0] - started >= 0.29
    finally:
        signal.signal(signal.SIGALRM, handler)
        signal.setitimer(signal.ITIMER_REAL, *before)


def test_deadline_rings_an_earlier_timer_that_came_due_meanwhile() -> None:
    """A timer that would have rung within the block rings right after it."""
    rung = []
    before = signal.setitimer(signal.ITIMER_REAL, 0)
    handler = signal.signal(signal.SIGALRM, lambda *_: rung.append(True))
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        with deadline(30):
            time.sleep(0.15)
            assert not rung
        end = time.monotonic() + 10
        while not rung:
            assert time.monotonic() < end
            time.sleep(0.01)
    finally:
        signal.signal(signal.SIGALRM, handler)
        signal.setitimer(signal.ITIMER_REAL, *before)


def test_deadline_of_none_does_nothing() -> None:
    """Without a time nothing is armed."""
    handler = signal.getsignal(signal.SIGALRM)
    with deadline(None):
        assert signal.getsignal(signal.SIGALRM) is handler


def test_deadline_outside_the_main_thread_does_nothing() -> None:
    """In another thread, where Python sets no handlers, the block just runs."""
    ran = []

    def work() -> None:
        with deadline(0.001):
            time.sleep(0.05)
            ran.append(True)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert ran == [True]


def test_deadline_costs_next_to_nothing() -> None:
    """A deadline takes far less than the millisecond that the smallest photo takes."""
    times_s = []
    for _ in range(200):
        started = time.perf_counter()
        with deadline(100):
            pass
        times_s.append(time.perf_counter() - started)
    assert np.median(times_s) < 3e-4
