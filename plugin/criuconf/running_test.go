package criuconf

import (
	"errors"
	"testing"
	"time"

	"github.com/ipc-cr/ipc-cr/plugin/internal/criuproc"
)

// The error says why the wait was over: an interrupted one must not read as one
// that took too long.
func TestStillRunning(t *testing.T) {
	signal := errors.New("interrupted by SIGTERM")
	one := []criuproc.Process{{PID: 7, Command: "criu\x00dump"}}
	const head, tail = "remove /usr/lib/x: a criu that runs may still call it", ": nothing names it any more, and the link stays: run ipc-cr uninstall again when "
	for _, test := range []struct {
		left   []criuproc.Process
		waited error
		want   string
	}{
		{one, nil, head + `: criu, process 7 ("criu\x00dump")` + tail + "it has ended"},
		{one, errWaited, head + ` after 3s: criu, process 7 ("criu\x00dump")` + tail + "it has ended"},
		{append(one, one...), signal, head + ", and the wait for its end was given up (interrupted by SIGTERM)" +
			`: criu, process 7 ("criu\x00dump"), criu, process 7 ("criu\x00dump")` + tail + "they have ended"},
	} {
		j := &job{report: &Report{Script: "/usr/lib/x"}}
		err := j.stillRunning(test.left, 3*time.Second, test.waited)
		if err.Error() != test.want || !errors.Is(err, ErrRunning) || errors.Is(err, signal) != (test.waited == signal) {
			t.Errorf("%v\nwant %s", err, test.want)
		}
	}
}
