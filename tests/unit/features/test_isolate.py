"""What must hold of the bounds around a decoder that hangs, crashes or grows."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import textwrap
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from support.corpus import encoded, slow_jpeg, zoo
from verger.features.isolate import DecoderPool, deadline, decode_apart
from verger.features.preprocess import DecodeError, decode_photo
from verger.features.preprocess.pillow import pillow_settings
from verger.schema import Reason

ZOO = zoo()
JPEG = ZOO["JPEG baseline"].content
CUT = encoded(Image.effect_noise((64, 64), 50), "JPEG")[:-500]


@pytest.fixture(scope="module")
def pool() -> Iterator[DecoderPool]:
    """Yield decoding processes whose decoder does what the photo says."""
    pool = DecoderPool(2, "support.decoders:obey")
    yield pool
    pool.close()


def error_apart(pool: DecoderPool, content: bytes = JPEG, **options: Any) -> DecodeError:
    with pytest.raises(DecodeError) as caught:
        pool.decode(content, **{"size": 8, "timeout_s": 20.0} | options)
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


def test_a_decoding_process_imports_nothing_from_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A module that lies in a folder of somebody's photos is not run by a command started there."""
    for name in ("json", "pickle", "numpy", "PIL", "verger"):
        (tmp_path / f"{name}.py").write_text("open('was-run', 'w')\nraise SystemExit")
    monkeypatch.chdir(tmp_path)
    pool = DecoderPool(1)
    try:
        assert pool.decode(JPEG, size=8, timeout_s=20).pixels.shape == (8, 8, 3)
    finally:
        pool.close()
    assert not (tmp_path / "was-run").exists()


def test_options_reach_the_decoder(pool: DecoderPool) -> None:
    """``max_pixels`` and ``accept_truncated`` hold apart as they do here."""
    assert error_apart(pool, max_pixels=100).reason is Reason.TOO_MANY_PIXELS
    assert decode_apart(CUT, size=8, accept_truncated=True).truncated is True


def test_a_decoder_that_never_returns_is_a_time_out(pool: DecoderPool) -> None:
    """A decoder that loops for ever is killed at its time-out, and its photo may be tried again."""
    err = error_apart(pool, b"hang", timeout_s=0.2)
    assert err.reason is Reason.DECODE_TIMEOUT
    assert err.detail == "the decoder took longer than 0.2 s"
    assert err.reason.may_pass


def test_a_decoder_that_dies_is_a_crash(pool: DecoderPool) -> None:
    """A decoder that reads where it must not ends its process, and nothing else."""
    err = error_apart(pool, b"crash")
    assert err.reason is Reason.DECODER_CRASHED
    assert err.detail == f"the decoder died by signal {int(signal.SIGSEGV)}"


def test_a_decoder_that_ends_its_process_is_a_crash(pool: DecoderPool) -> None:
    """A process that ends without an answer is reported as such."""
    err = error_apart(pool, b"exit")
    assert err.reason is Reason.DECODER_CRASHED
    assert err.detail == "the decoder ended without an answer"


@pytest.mark.parametrize("deed", [b"crash", b"exit", b"hang", b"grow"])
def test_one_photo_is_lost_at_most(pool: DecoderPool, deed: bytes) -> None:
    """The photo after one that hung, crashed or grew is decoded as ever."""
    error_apart(pool, deed, timeout_s=2, max_pixels=1)
    assert pool.decode(JPEG, size=8, timeout_s=20).width == 48


def test_a_photo_does_not_pay_for_an_earlier_one(pool: DecoderPool) -> None:
    """A crash in a process that has decoded others is tried once more in a new process."""
    assert pool.decode(b"spoil " + JPEG, size=8, timeout_s=20).width == 48
    assert pool.decode(b"crash-if-spoilt " + JPEG, size=8, timeout_s=20).width == 48


def test_a_decoder_that_grows_is_out_of_memory(pool: DecoderPool) -> None:
    """A decoder that allocates for ever comes to the bound of its address space."""
    err = error_apart(pool, b"grow", max_pixels=1)
    assert err.reason is Reason.TOO_MANY_PIXELS
    assert err.detail == "out of memory while decoding"


def test_the_bound_leaves_room_for_the_largest_photo(pool: DecoderPool) -> None:
    """Within 24 bytes a pixel of the largest photo nothing is refused, the second time either."""
    for _ in range(2):
        assert pool.decode(b"take " + JPEG, size=8, max_pixels=50_000_000).width == 48


def test_memory_that_a_decoder_keeps_is_not_taken_from_the_next_photo(pool: DecoderPool) -> None:
    """However much a decoder leaks, every photo has the same room."""
    for _ in range(6):
        assert pool.decode(b"keep " + JPEG, size=8, max_pixels=10_000).width == 48


def test_the_bound_is_not_this_process() -> None:
    """Neither the limit nor a timer is left in this process."""
    before = resource.getrlimit(resource.RLIMIT_AS), signal.getitimer(signal.ITIMER_REAL)[0] > 0
    decode_apart(JPEG, size=8, timeout_s=20)
    after = resource.getrlimit(resource.RLIMIT_AS), signal.getitimer(signal.ITIMER_REAL)[0] > 0
    assert after == before


def test_a_progressive_jpeg_of_many_scans_is_a_time_out() -> None:
    """A file of 200 kB that keeps libjpeg busy for minutes is given up in time."""
    with pytest.raises(DecodeError) as caught:
        decode_apart(slow_jpeg(), size=8, timeout_s=0.5)
    assert caught.value.reason is Reason.DECODE_TIMEOUT


def test_200_photos_leave_no_descriptor_and_no_process() -> None:
    """After 200 photos, good and bad, one process is there, and none once the pool is closed."""

    def n_open() -> int:
        return len(list(Path("/proc/self/fd").iterdir()))

    pool, before, others = DecoderPool(2), n_open(), children()
    for number in range(200):
        if number % 2:
            pool.decode(JPEG, size=8, timeout_s=20)
        else:
            error_apart(pool, CUT)
    assert len(children()) == len(others) + 1
    pool.close()
    assert n_open() == before
    assert children() == others


def children() -> list[str]:
    """List the children of this process; other tests may have left a JVM among them."""
    return Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()


def test_an_interrupt_while_waiting_leaves_no_process() -> None:
    """If the caller is interrupted, the process that decodes for it is killed and reaped."""

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    pool, others = DecoderPool(1, "support.decoders:obey"), children()
    pool.decode(JPEG, size=8)
    timer, handler = signal.setitimer(signal.ITIMER_REAL, 0), signal.getsignal(signal.SIGALRM)
    signal.signal(signal.SIGALRM, interrupt)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.5)
        with pytest.raises(KeyboardInterrupt):
            pool.decode(b"sleep", size=8)
    finally:
        signal.signal(signal.SIGALRM, handler)
        signal.setitimer(signal.ITIMER_REAL, *timer)
    assert children() == others
    assert pool.decode(JPEG, size=8).width == 48  # and its place is free again
    pool.close()


def test_threads_decode_apart_at_the_same_time() -> None:
    """Threads get their own photos back, and share the processes that there may be."""
    pool, others = DecoderPool(2), children()
    expected = [decode_photo(JPEG, size=size).pixels for size in range(8, 12)]
    found: list[Any] = []

    def work(size: int) -> None:
        found.extend((size, pool.decode(JPEG, size=size, timeout_s=60).pixels) for _ in range(5))

    threads = [threading.Thread(target=work, args=(size,)) for size in range(8, 12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 20
    for size, pixels in found:
        np.testing.assert_array_equal(pixels, expected[size - 8])
    assert len(children()) <= len(others) + 2
    pool.close()


def test_a_photo_does_not_wait_for_a_lock_of_another_thread() -> None:
    """A photo is decoded apart while another thread is in the decoder, for however long."""
    with pillow_settings(10**6, load_truncated=False):
        assert decode_apart(JPEG, size=8, timeout_s=20).width == 48


def test_this_process_is_never_forked() -> None:
    """No handler of a fork runs: OpenBLAS's waits for a thread that may wait for Python."""
    program = """
        import ctypes, os, sys
        from verger.features.isolate import decode_apart
        handler = ctypes.CFUNCTYPE(None)(lambda: os._exit(9))
        ctypes.CDLL(None)["__register_atfork"](handler, None, None, None)  # pthread_atfork()
        os.register_at_fork(before=lambda: os._exit(8))
        assert decode_apart(sys.stdin.buffer.read(), size=8).width == 48
    """
    command = [sys.executable, "-c", textwrap.dedent(program)]
    subprocess.run(command, input=JPEG, timeout=60, check=True)


def test_a_fork_of_this_process_has_decoders_of_its_own() -> None:
    """Spark forks its workers: parent and child do not share a process, and neither loses one."""
    decode_apart(JPEG, size=8)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # about threads of other tests
        pid = os.fork()
    if pid == 0:
        try:
            os._exit(decode_apart(JPEG, size=8).width)
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 48
    assert decode_apart(JPEG, size=8).width == 48


@pytest.mark.parametrize("deed", ["", "tell "])
def test_a_decoding_process_outlives_no_parent(tmp_path: Path, deed: str) -> None:
    """If the parent is killed an idle process ends, and a busy one soon after its time-out."""
    told = tmp_path / "id"
    program = f"""
        import os, sys, time
        from verger.features.isolate import DecoderPool
        pool = DecoderPool(1, "support.decoders:obey")
        photo = sys.stdin.buffer.read()
        pool.decode(photo, size=8)
        children = open(f"/proc/self/task/{{os.getpid()}}/children").read()
        open({str(told)!r}, "w").write(children)
        pool.decode({deed!r}.encode() + photo, size=8, timeout_s=1.5)
        time.sleep(600)
    """
    command = [sys.executable, "-c", textwrap.dedent(program)]
    path = os.pathsep.join(sys.path)
    environment = os.environ | {"DECODER_ID": str(tmp_path / "busy"), "PYTHONPATH": path}
    with subprocess.Popen(command, stdin=subprocess.PIPE, env=environment) as parent:
        assert parent.stdin is not None
        try:
            parent.stdin.write(JPEG)
            parent.stdin.close()
            wait_until(lambda: told.exists() and told.read_text().strip() != "")
            if deed:
                wait_until((tmp_path / "busy").exists)
        finally:
            parent.kill()
    child = int(told.read_text())
    wait_until(lambda: state(child) == "Z")


def wait_until(is_so: Callable[[], object]) -> None:
    end = time.monotonic() + 60
    while not is_so():
        assert time.monotonic() < end
        time.sleep(0.05)


def state(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return "Z"


# ---- deadline ------------------------------------------------------------------------------


def run_with_deadline(block: str) -> int:
    imports = "import ctypes, time\nfrom verger.features.isolate import deadline"
    program = f"{imports}\n{textwrap.dedent(block)}"
    done = subprocess.run([sys.executable, "-c", program], timeout=60, check=False)
    return done.returncode


def test_deadline_ends_a_process_that_c_code_holds() -> None:
    """A call that neither returns nor gives the interpreter back is ended by the kernel."""
    status = run_with_deadline(
        """
        with deadline(0.3):
            ctypes.PyDLL(None).sleep(100)  # holds the interpreter, as a decoder may
        """
    )
    assert status == -signal.SIGALRM


def test_deadline_is_over_with_its_block() -> None:
    """Nothing happens after a block that was in time, whether it raised or not."""
    status = run_with_deadline(
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


def test_deadline_puts_the_earlier_handler_and_timer_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """A timer and handler from before run on afterwards, with the time that was left."""
    before = signal.setitimer(signal.ITIMER_REAL, 0)
    handler = signal.signal(signal.SIGALRM, earlier := lambda *_: None)
    clock_s = iter((1_000.0, 1_400.0))  # when the block begins and ends
    try:
        signal.setitimer(signal.ITIMER_REAL, 1_000, 7)
        with monkeypatch.context() as patched:
            patched.setattr(time, "monotonic", lambda: next(clock_s))
            with deadline(30):
                pass
        left_s, interval_s = signal.getitimer(signal.ITIMER_REAL)
        assert left_s == pytest.approx(600, abs=200)  # this process' own time counts as well
        assert interval_s == 7
        assert signal.getsignal(signal.SIGALRM) is earlier
    finally:
        signal.signal(signal.SIGALRM, handler)
        signal.setitimer(signal.ITIMER_REAL, *before)


def test_deadline_rings_an_earlier_timer_that_came_due_meanwhile(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A timer that would have rung within the block rings right after it."""
    rung = []
    before = signal.setitimer(signal.ITIMER_REAL, 0)
    handler = signal.signal(signal.SIGALRM, lambda *_: rung.append(True))
    clock_s = iter((1_000.0, 3_000.0))  # when the block begins and ends
    try:
        signal.setitimer(signal.ITIMER_REAL, 1_000)
        with monkeypatch.context() as patched:
            patched.setattr(time, "monotonic", lambda: next(clock_s))
            with deadline(30):
                assert not rung
        wait_until(lambda: rung)
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
