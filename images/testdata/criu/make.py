#!/usr/bin/env python3
"""Makes the images beside it with the real CRIU: as root, ./make.py [CASE...]

Each case is a task in an IPC namespace of its own, filled through libc, dumped
with `criu dump --leave-running` and killed. What must be in the images stands
in images/criu_test.go.
"""

import ctypes
import glob
import os
import shutil
import signal
import struct
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
CREAT_EXCL = 0o3000
CLONE_NEWIPC, CLONE_NEWUSER = 0x08000000, 0x10000000
libc = ctypes.CDLL(None, use_errno=True)


def check(result):
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


def pattern(size):
    return bytes((i * 7 + size) % 251 for i in range(size))


def queue(key, mode, sizes=(), wanted=None, owner=0, mtype=lambda i: i + 1):
    if wanted is not None:
        with open("/proc/sys/kernel/msg_next_id", "w") as f:
            f.write(str(wanted))
    os.setegid(owner)
    os.seteuid(owner)
    msqid = check(libc.msgget(key, CREAT_EXCL | mode))
    os.seteuid(0)
    os.setegid(0)
    assert wanted is None or msqid == wanted, msqid
    for i, size in enumerate(sizes):
        check(libc.msgsnd(msqid, struct.pack("=q", mtype(i)) + pattern(size), ctypes.c_size_t(size), 0o4000))


def plain():
    queue(0x1234, 0o600, [0, 1, 7, 8, 9])
    queue(0, 0o644)
    queue(0, 0o666, [4048])


def edges():
    queue(0, 0o0, [3], wanted=2**31 - 1)
    queue(0x7FFFFFFF, 0o777, [4047, 4049], wanted=2**31 - 2)
    queue(-1, 0o640, [8, 0, 16], wanted=4242, owner=1000,
          mtype=lambda i: [127, 128, 2**63 - 1][i])
    queue(0x51, 0o600, [8192, 5], mtype=lambda i: [2**31, 2**56][i])


def many():
    queue(0x77, 0o600, [i % 17 for i in range(200)], mtype=lambda i: 1 + i * i)


def none():
    pass


def userns():
    queue(0x99, 0o600, [8, 9], owner=7)


CASES = {f.__name__: f for f in (plain, edges, many, none, userns)}


def task(fill, ready, go):
    """Never returns: fills a namespace and sleeps in it, as CRIU wants a task."""
    os.setsid()
    flags = CLONE_NEWIPC | (CLONE_NEWUSER if fill is userns else 0)
    check(libc.unshare(flags))
    os.write(ready, b"u")
    os.read(go, 1)
    if fill is userns:
        os.setgroups([])
        os.setresgid(0, 0, 0)
        os.setresuid(0, 0, 0)
    fill()
    os.chdir("/")
    null = os.open("/dev/null", os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(null, fd)
    os.write(ready, b"f")
    os.closerange(3, 1024)
    os.execv("/bin/sleep", ["sleep", "1000"])


def start(fill):
    ready, childready = os.pipe()
    childgo, go = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            task(fill, childready, childgo)
        finally:
            os._exit(1)
    os.close(childready)
    assert os.read(ready, 1) == b"u"
    if fill is userns:
        for name in ("uid_map", "gid_map"):
            with open("/proc/%d/%s" % (pid, name), "w") as f:
                f.write("0 100000 1000")
    os.write(go, b"g")
    assert os.read(ready, 1) == b"f"
    while os.read(ready, 1):  # closed by exec
        pass
    return pid


def make(name):
    pid = start(CASES[name])
    work = tempfile.mkdtemp()
    os.chmod(work, 0o711)
    try:
        subprocess.run(["criu", "dump", "--leave-running", "-t", str(pid), "-D", work, "-o", "dump.log", "-v4"], check=True)
        target = os.path.join(HERE, name)
        os.makedirs(target, exist_ok=True)
        for image in glob.glob(os.path.join(work, "ipcns-*.img")):
            shutil.copyfile(image, os.path.join(target, os.path.basename(image)))
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        shutil.rmtree(work)


for case in sys.argv[1:] or CASES:
    make(case)
