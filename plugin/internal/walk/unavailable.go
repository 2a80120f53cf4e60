package walk

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/ipc-cr/ipc-cr/plugin/internal/linux"
)

// Unavailable says why queues cannot be walked here.
type Unavailable struct {
	Reason string // what is missing
	Remedy string // what helps, "" if nothing does
	Err    error  // what the kernel said; may be nil
}

func (u *Unavailable) Error() string {
	if u.Remedy == "" {
		return u.Detail()
	}
	return u.Detail() + "; remedy: " + u.Remedy
}

// Detail is the error without the remedy.
func (u *Unavailable) Detail() string {
	if u.Err == nil {
		return u.Reason
	}
	return u.Reason + ": " + u.Err.Error()
}

func (u *Unavailable) Unwrap() error { return u.Err }

// possible tells what can be told without asking for anything.
func possible() error {
	if _, err := os.Stat("/sys/kernel/btf/vmlinux"); err != nil {
		return &Unavailable{"the kernel does not describe its types", "a kernel with CONFIG_DEBUG_INFO_BTF", err}
	}
	held, err := linux.Capabilities()
	if err != nil {
		return &Unavailable{"the capabilities cannot be read", "", err}
	}
	const both = 1<<(unix.CAP_BPF) | 1<<(unix.CAP_PERFMON)
	if held&(1<<unix.CAP_SYS_ADMIN) == 0 && held&both != both {
		return &Unavailable{"not permitted", "CAP_BPF and CAP_PERFMON, as root of the host has", unix.EPERM}
	}
	return nil
}

// explain finds out why the kernel refused. What it says itself is often no more
// than EPERM.
func explain(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, ebpf.ErrNotSupported), errors.Is(err, unix.EINVAL):
		return &Unavailable{"the kernel cannot run the program", "Linux 5.17 or later, with CONFIG_BPF_SYSCALL", err}
	case !errors.Is(err, unix.EPERM) && !errors.Is(err, unix.EACCES) && !errors.Is(err, unix.ENOSYS):
		return &Unavailable{"the program cannot be loaded", "", err}
	}
	if confined() {
		return &Unavailable{"the kernel is locked down (confidentiality)", "lockdown=integrity, or none", err}
	}
	if filtered() {
		return &Unavailable{"not permitted", "a seccomp filter that allows bpf(2)", err}
	}
	return &Unavailable{"not permitted", "CAP_BPF and CAP_PERFMON in the initial user namespace, as root of the host has", err}
}

// confined reads Documentation/ABI/testing, securityfs lockdown: the mode in
// force stands in brackets.
func confined() bool {
	text, err := os.ReadFile("/sys/kernel/security/lockdown")
	return err == nil && strings.Contains(string(text), "[confidentiality]")
}

// filtered reports whether a seccomp filter is in force (proc_pid_status(5)).
func filtered() bool {
	file, err := os.Open("/proc/thread-self/status")
	if err != nil {
		return false
	}
	defer file.Close()
	for lines := bufio.NewScanner(file); lines.Scan(); {
		var mode int
		if n, _ := fmt.Sscanf(lines.Text(), "Seccomp: %d", &mode); n == 1 {
			return mode != 0
		}
	}
	return false
}
