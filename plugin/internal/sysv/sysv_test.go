package sysv

import (
	"cmp"
	"encoding/binary"
	"errors"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/ipc-cr/ipc-cr/nsenter/nstest"
	"github.com/ipc-cr/ipc-cr/plugin/internal/creds"
)

func TestMain(m *testing.M) { nstest.Main(m) }

// inside runs fn on a thread in a fresh IPC namespace.
func inside(t *testing.T, fn func()) {
	t.Helper()
	if err := nstest.Fresh(t).Run(func() error { fn(); return nil }); err != nil {
		t.Fatal(err)
	}
}

func get(t *testing.T, key int32, flags uint32) int32 {
	t.Helper()
	id, err := Get(key, IPCCreat|IPCExcl|flags)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func msgbuf(mtype int64, payload string) []byte {
	return append(binary.NativeEndian.AppendUint64(nil, uint64(mtype)), payload...)
}

func receive(t *testing.T, id int32) {
	t.Helper()
	buf := make([]byte, 8192)
	_, _, errno := unix.Syscall6(unix.SYS_MSGRCV, uintptr(id), uintptr(unsafe.Pointer(&buf[0])), 8184, 0, IPCNoWait, 0)
	if errno != 0 {
		t.Fatal(errno)
	}
}

// nextSecond waits for the kernel's next second.
func nextSecond(t *testing.T) {
	t.Helper()
	second := time.Now().Unix()
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		var now unix.Timespec
		if err := unix.ClockGettime(unix.CLOCK_REALTIME_COARSE, &now); err != nil || time.Now().After(end) {
			t.Fatalf("no second after %d: %v", second, err)
		}
		if now.Sec > second {
			return
		}
	}
}

// The fields stand where the kernel puts them: /proc/sysvipc/msg says the same
// in words. The three times are three seconds.
func TestStatIsWhatProcSays(t *testing.T) {
	inside(t, func() {
		get(t, 5, 0o600)
		id := get(t, 0x1234567, 0o640)
		var ds, any MsqidDS
		if err := Set(id, &MsqidDS{Perm: IPCPerm{Mode: 0o751}, QBytes: 4321}); err != nil {
			t.Fatal(err)
		}
		nextSecond(t)
		for range 3 {
			if err := Send(id, msgbuf(1, "abcde")); err != nil {
				t.Fatal(err)
			}
		}
		nextSecond(t)
		receive(t, id)
		if err := Stat(id, &ds); err != nil {
			t.Fatal(err)
		}
		if got, err := StatAny(int(id), &any); err != nil || got != id || any != ds {
			t.Errorf("by index: %d, %v, %+v, want %+v", got, err, any, ds)
		}
		wantProc(t, id, &ds)
		if ds.QBytes != 4321 || ds.Perm.Mode != 0o751 || ds.QNum != 2 || ds.LRPID != int32(os.Getpid()) {
			t.Errorf("%+v", ds)
		}
		if now := time.Now().Unix(); ds.RTime == 0 || now-ds.RTime > 60 {
			t.Errorf("rtime %d, now %d", ds.RTime, now)
		}
	})
}

func wantProc(t *testing.T, id int32, ds *MsqidDS) {
	t.Helper()
	// key msqid perms cbytes qnum lspid lrpid uid gid cuid cgid stime rtime ctime
	got := []int64{
		int64(ds.Perm.Key), int64(id), int64(ds.Perm.Mode), int64(ds.CBytes), int64(ds.QNum), int64(ds.LSPID), int64(ds.LRPID),
		int64(ds.Perm.UID), int64(ds.Perm.GID), int64(ds.Perm.CUID), int64(ds.Perm.CGID), ds.STime, ds.RTime, ds.CTime,
	}
	bases := map[int]int{2: 8} // the permissions are octal
	for i, field := range procLine(t, id) {
		want, err := strconv.ParseInt(field, cmp.Or(bases[i], 10), 64)
		if err != nil || got[i] != want {
			t.Errorf("field %d is %d, /proc/sysvipc/msg says %s", i, got[i], field)
		}
	}
}

// Four ids that are all different.
func TestOwnersAreWhatProcSays(t *testing.T) {
	nstest.Require(t, "root")
	inside(t, func() {
		var id int32
		if err := creds.As(11, 12, func() error { id = get(t, 9, 0o600); return nil }); err != nil {
			t.Fatal(err)
		}
		var ds MsqidDS
		if err := errors.Join(Set(id, &MsqidDS{Perm: IPCPerm{UID: 13, GID: 14}}), Stat(id, &ds)); err != nil {
			t.Fatal(err)
		}
		if p := ds.Perm; p.CUID != 11 || p.CGID != 12 || p.UID != 13 || p.GID != 14 {
			t.Errorf("%+v", p)
		}
		wantProc(t, id, &ds)
	})
}

func procLine(t *testing.T, id int32) []string {
	t.Helper()
	text, err := os.ReadFile("/proc/sysvipc/msg")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if fields := strings.Fields(line); fields[1] == strconv.Itoa(int(id)) {
			return fields
		}
	}
	t.Fatalf("queue %d is not in %s", id, text)
	return nil
}

func TestInfo(t *testing.T) {
	inside(t, func() {
		get(t, 5, 0o600)
		id := get(t, 6, 0o600)
		if err := errors.Join(Send(0, msgbuf(1, "abc")), Send(id, msgbuf(1, "defg")), Send(id, msgbuf(1, ""))); err != nil {
			t.Fatal(err)
		}
		var info MsgInfo
		highest, err := Info(&info)
		if err != nil || highest != 1 || info.Pool != 2 || info.Map != 3 || info.Tql != 7 || info.Max != 8192 || info.Mnb != 16384 || info.Mni != 32000 {
			t.Errorf("%d, %v, %+v", highest, err, info)
		}
	})
}

func TestOtherKinds(t *testing.T) {
	inside(t, func() {
		for range 3 {
			if _, _, errno := unix.Syscall(unix.SYS_SEMGET, 0, 5, 0o600); errno != 0 {
				t.Fatal(errno)
			}
		}
		for range 2 {
			if _, err := unix.SysvShmGet(unix.IPC_PRIVATE, 4096, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		var sem SemInfoDS
		var shm ShmInfoDS
		if err := errors.Join(SemInfo(&sem), ShmInfo(&shm)); err != nil || sem.Usz != 3 || shm.UsedIDs != 2 {
			t.Errorf("%v, %d semaphore sets, %d segments, want 3 and 2", err, sem.Usz, shm.UsedIDs)
		}
	})
}

// An error names the call and wraps its errno.
func TestErrors(t *testing.T) {
	inside(t, func() {
		get(t, 5, 0o600)
		_, getErr := Get(5, IPCCreat|IPCExcl)
		_, statAny := StatAny(9, &MsqidDS{})
		for _, c := range []struct {
			err   error
			call  string
			errno unix.Errno
		}{
			{getErr, "msgget", unix.EEXIST},
			{statAny, "msgctl", unix.EINVAL},
			{Stat(77, &MsqidDS{}), "msgctl", unix.EINVAL},
			{Set(77, &MsqidDS{}), "msgctl", unix.EINVAL},
			{Remove(77), "msgctl", unix.EINVAL},
			{Send(77, msgbuf(1, "")), "msgsnd", unix.EINVAL},
		} {
			var call *os.SyscallError
			if !errors.Is(c.err, c.errno) || !errors.As(c.err, &call) || call.Syscall != c.call {
				t.Errorf("%v, want %s: %v", c.err, c.call, c.errno)
			}
		}
	})
}
