package linux

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/ipc-cr/ipc-cr/plugin/internal/creds"
	"github.com/ipc-cr/ipc-cr/plugin/internal/sysv"
)

const nextIDName = "kernel.msg_next_id"

// sysctlPath follows sysctl(8): dots become slashes. The file acts on the IPC
// namespace of the thread that opens it (ipc/ipc_sysctl.c, set_lookup).
func sysctlPath(name string) string {
	return "/proc/sys/" + strings.ReplaceAll(name, ".", "/")
}

func (t *thread) Sysctl(name string) ([]int64, error) {
	if info := infos[name]; info != nil {
		values, err := info()
		if err != nil {
			return nil, fmt.Errorf("read sysctl %s: %w", name, err)
		}
		return values, nil
	}
	fd, err := t.openSysctl(name)
	if err != nil {
		return nil, err
	}
	var buf [128]byte // kernel.sem, the longest, holds four numbers
	n, err := unix.Pread(fd, buf[:], 0)
	if err != nil {
		return nil, fmt.Errorf("read sysctl %s: %w", name, err)
	}
	values, err := parseFields(string(buf[:n]))
	if err != nil {
		return nil, fmt.Errorf("read sysctl %s: %w", name, err)
	}
	return values, nil
}

// infos are the sysctls that a system call tells as well, for the namespace of
// the calling thread: a tenth of what to open and read a file of /proc takes.
var infos = map[string]func() ([]int64, error){
	"kernel.msgmax": msgLimit(func(i *sysv.MsgInfo) int32 { return i.Max }),
	"kernel.msgmnb": msgLimit(func(i *sysv.MsgInfo) int32 { return i.Mnb }),
	"kernel.msgmni": msgLimit(func(i *sysv.MsgInfo) int32 { return i.Mni }),
	"kernel.sem":    semLimits,
	"kernel.shmmax": shmLimit(func(l *sysv.ShmLimitsDS) uint64 { return l.Max }),
	"kernel.shmall": shmLimit(func(l *sysv.ShmLimitsDS) uint64 { return l.All }),
	"kernel.shmmni": shmLimit(func(l *sysv.ShmLimitsDS) uint64 { return l.Mni }),
}

func msgLimit(field func(*sysv.MsgInfo) int32) func() ([]int64, error) {
	return func() ([]int64, error) {
		var info sysv.MsgInfo
		_, err := sysv.Info(&info)
		return []int64{int64(field(&info))}, err
	}
}

// semLimits are in the order of the file (ipc/ipc_sysctl.c, sem_ctls).
func semLimits() ([]int64, error) {
	var info sysv.SemInfoDS
	err := sysv.SemInfo(&info)
	return []int64{int64(info.Msl), int64(info.Mns), int64(info.Opm), int64(info.Mni)}, err
}

func shmLimit(field func(*sysv.ShmLimitsDS) uint64) func() ([]int64, error) {
	return func() ([]int64, error) {
		var limits sysv.ShmLimitsDS
		err := sysv.ShmLimits(&limits)
		return []int64{int64(field(&limits))}, err // the bits are what counts
	}
}

func (t *thread) openSysctl(name string) (int, error) {
	if fd, open := t.sysctls[name]; open {
		return fd, nil
	}
	fd, err := unix.Open(sysctlPath(name), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("open sysctl %s: %w", name, err)
	}
	if t.sysctls == nil {
		t.sysctls = map[string]int{}
	}
	t.sysctls[name] = fd
	return fd, nil
}

func parseFields(text string) (values []int64, err error) {
	fields := strings.Fields(text)
	values = make([]int64, len(fields))
	for i, field := range fields {
		if values[i], err = parseSysctl(field); err != nil {
			return nil, err
		}
	}
	return values, nil
}

// parseSysctl reads a signed or an unsigned 64-bit number: kernel.shmmax is an
// unsigned long, and its default is close to the largest one. The bits are
// what counts.
func parseSysctl(field string) (int64, error) {
	if strings.HasPrefix(field, "-") {
		return strconv.ParseInt(field, 10, 64)
	}
	value, err := strconv.ParseUint(field, 10, 64)
	return int64(value), err
}

func (t *thread) SetSysctl(name string, value int64) error {
	return t.asRoot(func() error {
		fd, err := t.writer(name)
		if err != nil {
			return err
		}
		return writeSysctl(fd, name, value)
	})
}

func (t *thread) MaySetSysctl(name string) error {
	return t.asRoot(func() error {
		_, err := t.writer(name)
		return err
	})
}

// asRoot tries again as the namespace's own root what the caller may not do.
func (t *thread) asRoot(do func() error) error {
	err := do()
	if t.root == nil || (!errors.Is(err, unix.EACCES) && !errors.Is(err, unix.EPERM)) {
		return err
	}
	return creds.As(t.root.UID, t.root.GID, do)
}

// writer opens a sysctl for writing. It stays open: who asks first whether it may
// write does so later, and to find the file is most of the work.
func (t *thread) writer(name string) (int, error) {
	if fd, open := t.writers[name]; open {
		return fd, nil
	}
	fd, err := unix.Open(sysctlPath(name), unix.O_WRONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("open sysctl %s for writing: %w", name, err)
	}
	if t.writers == nil {
		t.writers = map[string]int{}
	}
	t.writers[name] = fd
	return fd, nil
}

// writeSysctl writes at offset 0, where the kernel wants the whole value
// (kernel.sysctl_writes_strict).
func writeSysctl(fd int, name string, value int64) error {
	if _, err := unix.Pwrite(fd, strconv.AppendInt(nil, value, 10), 0); err != nil {
		return fmt.Errorf("write %d to sysctl %s: %w", value, name, err)
	}
	return nil
}
