package criuhook

import (
	"errors"
	"strings"
	"testing"

	"github.com/ipc-cr/ipc-cr/plugin"
)

// What cannot be counted is not taken for none; those of the host are not the
// container's to lose.
func TestWarnPOSIX(t *testing.T) {
	for _, c := range []struct {
		others plugin.Others
		host   bool
		want   string
	}{
		{plugin.Others{Semaphores: 1}, false, ""},
		{plugin.Others{}, true, ""},
		{plugin.Others{POSIXQueues: 2}, false, "ipc-cr: pre-dump: warning: 2 POSIX message queues in the namespace, which neither CRIU nor ipc-cr saves: the restored container has none\n"},
		{plugin.Others{POSIXQueues: 2}, true, "ipc-cr: pre-dump: warning: 2 POSIX message queues in the host's IPC namespace, where the container is, which neither CRIU nor ipc-cr saves\n"},
		{plugin.Others{Unknown: errors.New("why")}, false, "ipc-cr: pre-dump: warning: whether there are POSIX message queues in the namespace, which neither CRIU nor ipc-cr saves, is not known: why\n"},
		{plugin.Others{Unknown: errors.New("why")}, true, "ipc-cr: pre-dump: warning: whether there are POSIX message queues in the host's IPC namespace, where the container is, which neither CRIU nor ipc-cr saves, is not known: why\n"},
	} {
		var log strings.Builder
		r := &run{Hook: &Hook{Log: &log}, Event: Event{Action: PreDump}}
		r.warnPOSIX(c.others, c.host)
		if log.String() != c.want {
			t.Errorf("%+v, host %t: %q, want %q", c.others, c.host, log.String(), c.want)
		}
	}
}
