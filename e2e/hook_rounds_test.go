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

// loaded are the roles of a worker that never waits but for a queue.
var loaded = []string{"produce:0x81:0", "consume:0x83:0", "move:0x81:0", "move:0x82:0", "churn:0x900:0"}

// TestHookRounds carries a container again and again while it works as fast as it
// can: no message is lost, doubled or out of order over all of it, and nothing
// gathers in the images directory or among the records.
func TestHookRounds(t *testing.T) {
	for name, start := range map[string]func(*testing.T, *crew) (subject, string){
		"criu": func(t *testing.T, c *crew) (subject, string) {
			s := startByCRIU(t, c, hookConf(t))
			return s, s.(*criuSubject).dir
		},
		"runc": func(t *testing.T, c *crew) (subject, string) {
			s := startByRunc(t, c, hookConf(t))
			return s, s.dir
		},
	} {
		t.Run(name, func(t *testing.T) {
			nstest.Require(t, "criu", "runc")
			leavesNothing(t)
			c := newCrew(t, loaded...)
			sub, dir := start(t, c)
			roundAndRound(t, c, sub, dir)
		})
	}
}

func roundAndRound(t *testing.T, c *crew, sub subject, dir string) {
	t.Helper()
	before := c.ask(t, "go")
	var first, records []string
	for round := range rounds(t, 10) {
		c.advance(t, before, 20)
		mustSave(t, sub)
		mustLoad(t, sub)
		before = c.ask(t, "report")
		files := ours(t, dir)
		if round == 0 {
			first = files
		}
		if !slices.Equal(files, first) {
			t.Fatalf("round %d: the images directory holds %q, after the first %q", round, files, first)
		}
		records = append(records, recordsOf(t, sub)...)
	}
	c.advance(t, before, 20)
	c.faultless(t, c.ask(t, "stop"))
	for _, record := range records[:len(records)-1] { // each restore looks after those before
		if _, err := os.Stat(record); err == nil {
			t.Errorf("left behind: %s", record)
		}
	}
}

// ours are the files of an images directory in which message queues are, under
// whatever name.
func ours(t *testing.T, dir string) (names []string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, entry := range entries {
		if strings.Contains(entry.Name(), "ipc") || strings.HasPrefix(entry.Name(), ".") {
			names = append(names, entry.Name())
		}
	}
	return names
}

// recordsOf is the record of a subject's namespace, which every restore leaves.
func recordsOf(t *testing.T, s subject) (found []string) {
	t.Helper()
	briefly(t, s, func(ns *nsenter.Namespace) {
		id := identityOf(t, ns)
		found, _ = filepath.Glob(fmt.Sprintf("/run/ipc-cr/record-*-%d-%d.json", id.ID, id.Inode))
	})
	if len(found) != 1 {
		t.Fatalf("records of the namespace: %q", found)
	}
	return found
}
