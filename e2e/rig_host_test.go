package e2e_test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/ipc-cr/ipc-cr/nsenter"
	"github.com/ipc-cr/ipc-cr/nsenter/nstest"
)

// hostKey returns a key that no program on the machine has, and no other run of
// these tests.
func hostKey(n int) int { return 0x6c<<24 | os.Getpid()&0xffff<<8 | n }

const hostKeys = 16 // that hostKey is asked for, at most

// hostNS opens the host's IPC namespace, where this process is. Our queues there
// go with the test.
func hostNS(t testing.TB) *nsenter.Namespace {
	t.Helper()
	nstest.Require(t, "host")
	ns := namespaceOf(t, os.Getpid())
	t.Cleanup(func() {
		for _, q := range ourHostQueues(t, ns) {
			inNamespace(t, ns, func() error { return removeQueue(q.ID) })
		}
	})
	return ns
}

// ourHostQueues returns those with the keys of hostKey.
func ourHostQueues(t testing.TB, ns *nsenter.Namespace) []queue {
	t.Helper()
	return slices.DeleteFunc(queues(t, ns), func(q queue) bool { return q.Key < hostKey(0) || q.Key >= hostKey(hostKeys) })
}

// hostQueue returns the queue with a key, which must be there.
func hostQueue(t testing.TB, ns *nsenter.Namespace, key int) queue {
	t.Helper()
	q := keyed(ourHostQueues(t, ns), key)
	if q == nil {
		t.Fatalf("no queue with key %#x", key)
	}
	return *q
}

func removeHostQueue(t testing.TB, ns *nsenter.Namespace, key int) {
	t.Helper()
	id := hostQueue(t, ns, key).ID
	inNamespace(t, ns, func() error { return removeQueue(id) })
}

// inHostIPC leaves the container in the IPC namespace of runc.
func inHostIPC(spec map[string]any) {
	linux := linuxOf(spec)
	linux["namespaces"] = slices.DeleteFunc(linux["namespaces"].([]any), func(ns any) bool {
		return ns.(map[string]any)["type"] == "ipc"
	})
}

// A hostSubject is a container in the host's IPC namespace, whose worker uses the
// queue with key hostKey(0).
type hostSubject struct {
	*runcSubject
	crew *crew
	ns   *nsenter.Namespace
}

func startInHostIPC(t testing.TB, conf string) *hostSubject {
	t.Helper()
	nstest.Require(t, byRunc.needs...)
	s := &hostSubject{ns: hostNS(t)}
	leavesNothing(t)
	key := fmt.Sprintf("%#x", hostKey(0))
	s.crew = newCrew(t, "produce:"+key+":100", "consume:"+key+":100")
	s.runcSubject = startByRunc(t, s.crew, conf, inHostIPC)
	s.crew.works(t)
	return s
}

// selecting is the setting that selects queues of root's.
func selecting(keys ...int) string {
	var texts []string
	for _, key := range keys {
		texts = append(texts, fmt.Sprintf("%q", fmt.Sprintf("%#x:0", key)))
	}
	return "host_queues = [" + strings.Join(texts, ", ") + "]\n"
}

func (s *hostSubject) mustSaveWith(t testing.TB, settings string, args ...string) {
	t.Helper()
	if err := s.saveWith(t, settings, args...); err != nil {
		t.Fatalf("checkpoint: %v\n%s", err, s.logs())
	}
}

func (s *hostSubject) mustLoadWith(t testing.TB, settings string) {
	t.Helper()
	if err := s.loadWith(t, settings); err != nil {
		t.Fatalf("restore: %v\n%s", err, s.logs())
	}
}

// says wants words in CRIU's logs.
func (s *hostSubject) says(t testing.TB, words ...string) {
	t.Helper()
	for _, word := range words {
		if !strings.Contains(s.logs(), word) {
			t.Errorf("the logs do not say %q:\n%s", word, s.logs())
		}
	}
}

// saved returns the queues in the images directory, as crit reads them, none
// without an image of queues.
func (s *hostSubject) saved(t testing.TB) []queue {
	t.Helper()
	files, err := filepath.Glob(s.dir + "/ipcns-msg-*.img")
	if err != nil || len(files) > 1 {
		t.Fatalf("%q, %v", files, err)
	}
	if len(files) == 0 {
		return nil
	}
	return critQueues(t, files[0])
}
