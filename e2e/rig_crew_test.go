package e2e_test

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
)

// A crew is the test's side of a worker, wherever that runs.
type crew struct {
	dir   string // holds the program too; it is at the same path in the container
	roles []string
}

func newCrew(t testing.TB, roles ...string) *crew {
	t.Helper()
	dir, err := os.MkdirTemp(shared(t), "crew-")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o777); err != nil { // the mapped root of a user namespace answers there
		t.Fatal(err)
	}
	if err := os.Link(taskProgram(t), filepath.Join(dir, "worker")); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return &crew{dir, roles}
}

// argv is a command line for a container with busybox.
func (c *crew) argv() []string {
	script := fmt.Sprintf("exec </dev/null >/tmp/log 2>&1; export %s=%s; exec %s/worker %s",
		workerEnv, c.dir, c.dir, strings.Join(c.roles, " "))
	return []string{"/bin/sh", "-c", script}
}

// orders are numbered through the whole test run: a worker that a restore set
// back must not take an order for one that it knows.
var orders atomic.Int64

// ask gives a worker an order, and returns what it reports then.
func (c *crew) ask(t testing.TB, order string) report {
	t.Helper()
	number := fmt.Sprint(orders.Add(1))
	part := filepath.Join(c.dir, "order")
	writeFile(t, part, number+" "+order)
	if err := os.Chmod(part, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(part, filepath.Join(c.dir, "cmd")); err != nil {
		t.Fatal(err)
	}
	var said report
	waitFor(t, fmt.Sprintf("a worker's answer to %q", order), func() bool {
		text, _ := os.ReadFile(filepath.Join(c.dir, "out"))
		head, body, _ := strings.Cut(string(text), " ")
		return head == number && json.Unmarshal([]byte(body), &said) == nil
	})
	return said
}

// works lets the worker go on until each of its roles has made some steps, and
// stops it again. It must not have seen a message lost, doubled or out of order.
func (c *crew) works(t testing.TB) {
	t.Helper()
	before := c.ask(t, "go")
	c.advance(t, before, 20)
	c.faultless(t, c.ask(t, "stop"))
}

// advance waits until each role has made so many steps more.
func (c *crew) advance(t testing.TB, before report, steps int) {
	t.Helper()
	waitFor(t, fmt.Sprintf("steps of %q", c.roles), func() bool {
		now := c.ask(t, "report")
		for _, role := range c.roles {
			if now.Done[role] < before.Done[role]+steps && len(now.Faults) == 0 {
				return false
			}
		}
		return true
	})
}

func (c *crew) faultless(t testing.TB, said report) {
	t.Helper()
	if len(said.Faults) > 0 {
		t.Errorf("a worker reports:\n%s", strings.Join(said.Faults, "\n"))
	}
}

func messageOf(buf []byte) message {
	return message{int64(binary.NativeEndian.Uint64(buf)), string(buf[8:])}
}

// rounds is how often a test repeats itself: a few times in the ordinary run,
// as often as IPC_CR_E2E_ROUNDS says on demand.
func rounds(t testing.TB, few int) int {
	t.Helper()
	text, ok := os.LookupEnv("IPC_CR_E2E_ROUNDS")
	if !ok {
		return few
	}
	n, err := strconv.Atoi(text)
	if err != nil {
		t.Fatalf("IPC_CR_E2E_ROUNDS: %v", err)
	}
	return n
}
