package eventlog

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// syslogSocket is where syslog(3) sends its messages to.
const syslogSocket = "/dev/log"

// Of syslog(3): LOG_DAEMON, and the severities.
const (
	daemon = 3 << 3

	severityError   = 3
	severityWarning = 4
	severityInfo    = 6
)

// maxMessage is how long a message can be, in bytes (RFC 3164, 4.1). The log has
// the whole text.
const maxMessage = 1024

// toSyslog sends an entry, a message for each of its lines. The standard library's
// log/syslog would wait for a system log that nobody reads, and dial the network's;
// here nothing is waited for, and nothing is tried twice.
func toSyslog(path string, e *Entry) {
	fd, stream := connect(path)
	if fd < 0 {
		return
	}
	defer unix.Close(fd)
	head := fmt.Sprintf("%s ipc-cr[%d]: %s %s: ", e.Time.Local().Format(time.Stamp), os.Getpid(), e.of(), e.Action)
	for _, line := range e.lines() {
		message := fmt.Appendf(nil, "<%d>", daemon|line.severity)
		message = append(message, Cut(head+line.text, maxMessage-len(message)-1)...)
		if stream {
			message = append(message, 0) // which ends one message there
		}
		if unix.Sendto(fd, message, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL, nil) != nil {
			return
		}
	}
}

// connect returns a socket that is connected to the system log, -1 if none answers.
// Some system logs listen at a stream (syslog(3) of the C library knows both).
func connect(path string) (fd int, stream bool) {
	for _, kind := range []int{unix.SOCK_DGRAM, unix.SOCK_STREAM} {
		fd, err := unix.Socket(unix.AF_UNIX, kind|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return -1, false
		}
		if err = unix.Connect(fd, &unix.SockaddrUnix{Name: path}); err == nil {
			return fd, kind == unix.SOCK_STREAM
		}
		_ = unix.Close(fd)
		if err != unix.EPROTOTYPE { //nolint:errorlint // the system call's own
			return -1, false
		}
	}
	return -1, false
}

// line is one line of an entry, for people.
type line struct {
	severity int
	text     string
}

func (e *Entry) lines() (lines []line) {
	if len(e.Done) > 0 {
		lines = append(lines, line{severityInfo, strings.Join(e.Done, "; ")})
	}
	for _, text := range e.Warnings {
		lines = append(lines, line{severityWarning, "warning: " + text})
	}
	if e.Error != "" {
		lines = append(lines, line{severityError, "error: " + e.Error})
	}
	return lines
}

// of says whom an entry is about, as well as it is known: the container's id or
// first process, or else the criu process.
func (e *Entry) of() string {
	switch {
	case e.Container != "":
		return e.Container
	case e.Init > 0:
		return "pid:" + strconv.Itoa(e.Init)
	case e.CRIU > 0:
		return "criu:" + strconv.Itoa(e.CRIU)
	}
	return "-"
}
