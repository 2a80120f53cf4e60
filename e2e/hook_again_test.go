package e2e_test

import (
	"strings"
	"testing"

	"github.com/ipc-cr/ipc-cr/nsenter/nstest"
)

// A container of a living pod is restored, consumes a message, is killed, and is
// restored again from the same checkpoint: its process would be back, and the
// message not.
func TestHookRetry(t *testing.T) {
	nstest.Require(t, byRunc.needs...)
	leavesNothing(t)
	p := newRuncPod(t, hookConf(t), []string{"consume:0x51:100"}, nil)
	s, c := p.members[0], p.crews[0]
	c.ask(t, "report") // it has its queue
	sendAll(t, p.ns, keyed(queues(t, p.ns), 0x51).ID, numbered(1), numbered(2), numbered(3))
	saved := queues(t, p.ns)
	mustSave(t, s)
	p.moveTo(t, nstest.Fresh(t))
	startByRunc(t, newCrew(t), hookConf(t), inIPC(fdPath(p.ns)))
	mustLoad(t, s)
	compareQueues(t, saved, queues(t, p.ns))
	// As long as nobody has used anything the same checkpoint can be restored again.
	retried(t, s)
	compareQueues(t, saved, queues(t, p.ns))

	c.ask(t, "go")
	waitFor(t, "all to be consumed", func() bool { return c.ask(t, "report").Done["consume:0x51:100"] == 3 })
	s.discard(t)
	err := s.load(t)
	if err == nil {
		t.Fatalf("the restore succeeds:\n%s", s.logs())
	}
	said := s.logs()
	for _, word := range []string{"queue ", "(key 0x51)", "was used since", s.dir, `again = "keep" or "rollback"`, "ipc-cr restore --pid ", "--on-conflict replace"} {
		if !strings.Contains(said, word) {
			t.Errorf("the refusal does not say %q:\n%s", word, said)
		}
	}
	if strings.Contains(said, "--on-conflict adopt") {
		t.Errorf("the refusal names a flag that nobody can give the hook:\n%s", said)
	}
	s.discard(t)
	if err := s.loadWith(t, "again = \"keep\"\n"); err != nil {
		t.Fatalf("restore: %v\n%s", err, s.logs())
	}
	if left := queues(t, p.ns)[0].Messages; len(left) != 0 {
		t.Errorf("kept: %+v", left)
	}
	s.discard(t)
	if err := s.loadWith(t, "again = \"rollback\"\n"); err != nil {
		t.Fatalf("restore: %v\n%s", err, s.logs())
	}
	compareQueues(t, saved, queues(t, p.ns))
	c.ask(t, "go")
	waitFor(t, "all to be consumed again", func() bool { return c.ask(t, "report").Done["consume:0x51:100"] == 3 })
	c.faultless(t, c.ask(t, "stop"))
}

// retried discards a restored container, and restores it again.
func retried(t *testing.T, s *runcSubject) {
	t.Helper()
	s.discard(t)
	mustLoad(t, s)
}

// A restore that CRIU gives up when the queues are there already is tried again
// whatever the neighbours did with them meanwhile: the container never ran.
func TestHookRetryOfFailed(t *testing.T) {
	nstest.Require(t, byRunc.needs...)
	leavesNothing(t)
	m := at(t, "post-restore", "exit 1")
	p := newRuncPod(t, hookConf(t, m.script), talking, nil)
	s, c := p.members[0], p.crews[0]
	c.works(t)
	id := makeQueue(t, p.ns, 0x99, samples...)
	mustSave(t, s)
	p.moveTo(t, nstest.Fresh(t))
	if s.load(t) == nil {
		t.Fatal("the restore succeeds although a script fails")
	}
	m.over(t)
	inNamespace(t, p.ns, func() error { _, err := take(id); return err })
	s.discard(t)
	mustLoad(t, s)
	c.works(t)
}

// A container that was started anew in the pod has made the queue already. If
// nobody has used it, it is filled, and the one that waits for a message gets it.
func TestHookExisting(t *testing.T) {
	for _, used := range []bool{false, true} {
		t.Run(map[bool]string{false: "unused", true: "used"}[used], func(t *testing.T) {
			nstest.Require(t, byRunc.needs...)
			leavesNothing(t)
			p := newRuncPod(t, hookConf(t), nil, nil)
			s := p.members[0]
			makeQueue(t, p.ns, 0x51, numbered(1), numbered(2))
			saved := queues(t, p.ns)
			mustSave(t, s)
			p.moveTo(t, nstest.Fresh(t))
			fresh := newCrew(t, "consume:0x51:100")
			startByRunc(t, fresh, hookConf(t), inIPC(fdPath(p.ns)))
			if used {
				fresh.ask(t, "go")
				inNamespace(t, p.ns, func() error { return send(queues(t, p.ns)[0].ID, numbered(1)) })
				waitFor(t, "it to be used", func() bool { return fresh.ask(t, "report").Done["consume:0x51:100"] == 1 })
				fresh.ask(t, "stop")
				if s.load(t) == nil {
					t.Fatalf("the restore succeeds:\n%s", s.logs())
				}
				if said := s.logs(); !strings.Contains(said, "exists and differs in number of messages") || !strings.Contains(said, `existing = "adopt"`) {
					t.Errorf("the refusal does not say why, or what decides otherwise:\n%s", said)
				}
				s.discard(t)
				if err := s.loadWith(t, "existing = \"adopt\"\n"); err != nil {
					t.Fatalf("restore: %v\n%s", err, s.logs())
				}
				return
			}
			mustLoad(t, s)
			if said := s.logs(); !strings.Contains(said, "1 filled") {
				t.Errorf("the log does not say that it was filled:\n%s", said)
			}
			compareQueues(t, saved, queues(t, p.ns))
			fresh.ask(t, "go")
			waitFor(t, "the new container to consume", func() bool { return fresh.ask(t, "report").Done["consume:0x51:100"] == 2 })
			fresh.faultless(t, fresh.ask(t, "stop"))
		})
	}
}

// Both containers of a pod are restored at the same time, with queues and without
// any.
func TestHookPodTogether(t *testing.T) {
	for name, roles := range map[string][][]string{"queues": {oneEnd, otherEnd}, "no queue": {nil, nil}} {
		t.Run("runc/"+name, func(t *testing.T) {
			nstest.Require(t, byRunc.needs...)
			leavesNothing(t)
			p := newRuncPod(t, hookConf(t), roles...)
			if len(roles[0]) > 0 {
				work(t, p.crews...)
			}
			saved := queues(t, p.ns)
			for _, s := range p.members {
				mustSave(t, s)
			}
			for range rounds(t, 5) {
				p.moveTo(t, nstest.Fresh(t))
				together(t, func(i int) error { return p.members[i].load(t) }, func(i int) string { return p.members[i].logs() })
				compareQueues(t, saved, queues(t, p.ns))
				for _, s := range p.members {
					s.discard(t)
				}
			}
		})
		t.Run("podman/"+name, func(t *testing.T) {
			nstest.Require(t, byPodman.needs...)
			leavesNothing(t)
			p := newPodmanPod(t, hookConf(t), roles...)
			if len(roles[0]) > 0 {
				work(t, p.crews...)
			}
			saved := queues(t, p.ns(t))
			archives := []string{p.export(t, 0), p.export(t, 1)}
			p.replace(t)
			together(t, func(i int) error { return p.bring(archives[i]) }, func(int) string { return hookSaid(p.dir) })
			compareQueues(t, saved, queues(t, p.ns(t)))
		})
	}
}

// Of two later checkpoints that both have something to make one takes its turn after
// the other.
func TestHookLaterTogether(t *testing.T) {
	nstest.Require(t, byRunc.needs...)
	leavesNothing(t)
	p := newRuncPod(t, hookConf(t), nil, nil, nil)
	mustSave(t, p.members[2])
	makeQueue(t, p.ns, 0x91, samples...)
	mustSave(t, p.members[0])
	makeQueue(t, p.ns, 0x92, samples...)
	saved := queues(t, p.ns)
	mustSave(t, p.members[1])
	for range rounds(t, 5) {
		p.moveTo(t, nstest.Fresh(t))
		mustLoad(t, p.members[2])
		together(t, func(i int) error { return p.members[i].load(t) }, func(i int) string { return p.members[i].logs() })
		compareQueues(t, saved, queues(t, p.ns))
		for _, s := range p.members {
			s.discard(t)
		}
	}
}

// together does something for both members of a pod at once.
func together(t *testing.T, do func(i int) error, logs func(i int) string) {
	t.Helper()
	errs := make(chan error)
	go func() { errs <- do(0) }()
	other := do(1)
	if err := <-errs; err != nil {
		t.Fatalf("the first: %v\n%s", err, logs(0))
	}
	if other != nil {
		t.Fatalf("the second: %v\n%s", other, logs(1))
	}
}
