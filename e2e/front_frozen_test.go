package e2e_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/checkpoint-restore/go-criu/v7/stats"

	"github.com/ipc-cr/ipc-cr/nsenter"
)

// fullQueue fills a queue with as many messages of a byte as the default qbytes
// allow.
func fullQueue(t testing.TB, s subject) {
	t.Helper()
	messages := make([]message, 16384)
	for n := range messages {
		messages[n] = message{int64(n%5 + 1), pattern(1)}
	}
	briefly(t, s, func(ns *nsenter.Namespace) { makeQueue(t, ns, manyKey, messages...) })
}

// TestFrontFrozen says for how long the container is frozen with 16,384
// messages, and wants them all back, by CRIU alone and with the hook. CRIU needs
// some time for any container, with runc, crun and Podman over 100 ms, most of it
// for mounts, network and what it asks the runtime: what a queue adds is the rest.
func TestFrontFrozen(t *testing.T) {
	for _, f := range allFronts {
		t.Run(f.name, func(t *testing.T) {
			each(t, allWays, func(t *testing.T, w way) { frozenThrough(t, f, w) })
		})
	}
}

func frozenThrough(t *testing.T, f front, w way) {
	t.Helper()
	for name, conf := range map[string]string{"without the hook": scriptConf(t), "with the hook": hookConf(t)} {
		sub := w.start(t, newCrew(t), conf)
		goThrough(sub, []string{"env"})
		mustSave(t, sub, "--leave-running")
		empty := frozenTime(t, sub)
		fullQueue(t, sub)
		mustSave(t, sub, "--leave-running")
		alone := frozenTime(t, sub)
		goThrough(sub, f.through(t))
		var least time.Duration
		for n := range rounds(t, 2) {
			mustSave(t, sub, "--leave-running")
			if took := frozenTime(t, sub); n == 0 || took < least {
				least = took
			}
		}
		saved := queues(t, nsOf(t, sub))
		mustSave(t, sub)
		wantBeside(t, sub)
		mustLoad(t, sub)
		compareQueues(t, saved, queues(t, nsOf(t, sub)))
		t.Logf("%s: frozen for %v, by CRIU alone for %v, which is %.0f times as long; without a queue for %v",
			name, least, alone, float64(alone)/float64(least), empty)
	}
}

// frozenTime is what CRIU notes of its last dump of a subject.
func frozenTime(t testing.TB, s subject) time.Duration {
	t.Helper()
	path, when := "", time.Time{}
	err := filepath.WalkDir(workDir(s), func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.Name() != "stats-dump" {
			return err
		}
		info, err := d.Info()
		if err == nil && info.ModTime().After(when) {
			path, when = filepath.Dir(p), info.ModTime()
		}
		return err
	})
	if err != nil || path == "" {
		t.Fatalf("no stats-dump below %s: %v", workDir(s), err)
	}
	dir, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	entry, err := stats.CriuGetDumpStats(dir)
	if err != nil {
		t.Fatal(err)
	}
	return time.Duration(entry.GetFrozenTime()) * time.Microsecond
}

// workDir is a directory below which CRIU leaves its statistics.
func workDir(s subject) string {
	switch s := s.(type) {
	case *criuSubject:
		return s.dir
	case *runcSubject:
		return s.dir
	case *crunSubject:
		return s.dir
	case *podmanSubject:
		return s.podman.dir
	}
	panic("another subject")
}
