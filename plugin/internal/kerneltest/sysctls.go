package kerneltest

import (
	"math"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

func sysctl(b *bench) {
	for name, value := range map[string]int64{
		msgmax: 8192, msgmnb: 16384, msgmni: 32000, "kernel.msg_next_id": -1, "kernel.auto_msgmni": 0,
		"kernel.shmmni": 4096, "kernel.shm_rmid_forced": 0, "fs.mqueue.msg_max": 10,
	} {
		b.wantSysctl(name, value)
	}
	for _, value := range []int64{0, 1, 20000, math.MaxInt32, 8192} {
		for _, name := range []string{msgmax, msgmnb} {
			b.setSysctl(name, value)
			b.wantSysctl(name, value)
		}
	}
	for _, value := range []int64{0, 1, 1 << b.k.IndexBits()} {
		b.setSysctl(msgmni, value)
		b.wantSysctl(msgmni, value)
	}
}

func sysctlMissing(b *bench) {
	const name = "kernel.msg_nothing"
	_, err := b.k.Sysctl(name)
	b.wantErr("read", err, unix.ENOENT)
	if err != nil && !strings.Contains(err.Error(), name) {
		b.Errorf("error %q does not name %s", err, name)
	}
	b.wantErr("may write", b.k.MaySetSysctl(name), unix.ENOENT)
	err = b.k.SetSysctl(name, 1)
	b.wantErr("write", err, unix.ENOENT)
	if err != nil && !strings.Contains(err.Error(), name) {
		b.Errorf("error %q does not name %s", err, name)
	}
}

func sysctlRange(b *bench) {
	for _, c := range []struct {
		name  string
		value int64
	}{
		{msgmax, -1}, {msgmax, math.MaxInt32 + 1}, {msgmnb, -1}, {msgmnb, math.MaxInt32 + 1},
		{msgmni, 1<<b.k.IndexBits() + 1}, {msgmni, -1}, {"kernel.msg_next_id", -1},
	} {
		err := b.k.SetSysctl(c.name, c.value)
		b.wantErr("write", err, unix.EINVAL)
		if err != nil && !strings.Contains(err.Error(), c.name) {
			b.Errorf("error %q does not name %s", err, c.name)
		}
	}
	b.wantErr("next id", b.k.SetNextID(-1), unix.EINVAL)
	b.wantErr("may write", b.k.MaySetSysctl(msgmax), nil)
	b.wantSysctl(msgmax, 8192)
	b.wantSysctl(msgmnb, 16384)
	b.wantSysctl(msgmni, 32000)
}

func sysctlSeveral(b *bench) {
	want := []int64{32000, 1024000000, 500, 32000}
	if got, err := b.k.Sysctl("kernel.sem"); err != nil || !slices.Equal(got, want) {
		b.Errorf("kernel.sem is %d, %v, want %d", got, err, want)
	}
	huge := uint64(math.MaxUint64 - 1<<24) // an unsigned long: the bits are what counts
	for _, name := range []string{"kernel.shmmax", "kernel.shmall"} {
		b.wantSysctl(name, int64(huge))
	}
}
