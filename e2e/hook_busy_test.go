package e2e_test

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ipc-cr/ipc-cr/nsenter/nstest"
)

// ringSize messages go round through two queues, 0x61 and 0x62.
const ringSize = 60

// TestHookBusyPod checkpoints one container of a pod while the other moves
// messages: each image must be a state that the queues really had.
func TestHookBusyPod(t *testing.T) {
	for name, pause := range map[string]int{"full speed": 0, "every 2 ms": 2000} {
		t.Run(name, func(t *testing.T) {
			nstest.Require(t, byRunc.needs...)
			leavesNothing(t)
			busyPod(t, hookConf(t), pause, nil)
		})
	}
}

func busyPod(t *testing.T, conf string, pause int, through []string) {
	p := newRuncPod(t, conf, nil, []string{fmt.Sprint("move:0x61:", pause), fmt.Sprint("back:0x62:", pause)})
	still, mover := p.members[0], p.crews[1]
	still.through = through
	fillRing(t, p)
	mover.ask(t, "go")
	for round := range rounds(t, 5) {
		still.dir = imagesDir(t)
		before := mover.ask(t, "report")
		mustSave(t, still, "--leave-running")
		mover.advance(t, before, 5) // it is not left stopped
		image := fmt.Sprintf("ipcns-msg-%d.img", namespaceNumber(t, still.dir))
		if torn := ringTorn(critQueues(t, filepath.Join(still.dir, image))); torn != nil {
			t.Fatalf("round %d: %v\n%s", round, torn, still.logs())
		}
		t.Log(frozenFor(still.logs()))
	}
	mover.faultless(t, mover.ask(t, "stop"))
	if torn := ringTorn(queues(t, p.ns)); torn != nil {
		t.Error(torn)
	}
}

func fillRing(t *testing.T, p *runcPod) {
	t.Helper()
	p.crews[1].ask(t, "report") // it has made its queues
	id := keyed(queues(t, p.ns), 0x61).ID
	for n := range ringSize {
		sendAll(t, p.ns, id, numbered(n))
	}
}

// ringTorn says why messages that go round cannot stand so: read along one
// queue and the other, the numbers go up by one, but for the one message at most
// that is on its way from each of them.
func ringTorn(found []queue) error {
	var ring []int
	var seams []int // where the next queue begins
	for _, key := range []int{0x62, 0x61} {
		q := keyed(found, key)
		if q == nil {
			return fmt.Errorf("no queue %#x", key)
		}
		for _, m := range q.Messages {
			n, err := numberOf(m)
			if err != nil {
				return err
			}
			ring = append(ring, n)
		}
		seams = append(seams, len(ring)%ringSize)
	}
	if len(ring) < ringSize-2 || len(ring) > ringSize {
		return fmt.Errorf("%d messages of %d: %d", len(ring), ringSize, ring)
	}
	for i, n := range ring {
		next := ring[(i+1)%len(ring)]
		gap := (next - n - 1 + ringSize) % ringSize
		seam := i+1 == seams[0] || i+1 == len(ring)
		if gap > 1 || gap == 1 && !seam {
			return fmt.Errorf("%d follows %d: %d", next, n, ring)
		}
	}
	return nil
}

// frozenFor returns what the hook says about the neighbours.
func frozenFor(log string) string {
	var said []string
	for line := range strings.Lines(log) {
		if strings.Contains(line, "ipc-cr:") && strings.Contains(line, "frozen") {
			said = append(said, strings.TrimSpace(line))
		}
	}
	return strings.Join(said, "\n")
}

// Without the hook CRIU fails now and then, or writes what never was.
func TestNoHookBusyPod(t *testing.T) {
	nstest.Require(t, byRunc.needs...)
	p := newRuncPod(t, scriptConf(t), nil, []string{"move:0x61:0", "back:0x62:0"})
	fillRing(t, p)
	p.crews[1].ask(t, "go")
	for range 20 {
		p.members[0].dir = imagesDir(t)
		if err := p.members[0].save(t, "--leave-running"); err != nil {
			return
		}
		image := fmt.Sprintf("ipcns-msg-%d.img", namespaceNumber(t, p.members[0].dir))
		if ringTorn(critQueues(t, filepath.Join(p.members[0].dir, image))) != nil {
			return
		}
	}
	t.Error("CRIU copies the queues of a busy pod rightly now")
}
