package e2e_test

import (
	"bufio"
	"fmt"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/ipc-cr/ipc-cr/nsenter/nstest"
)

// byGoCRIU is a Go program that drives CRIU with go-criu, and answers its
// notifications with ours.
var byGoCRIU = way{"go-criu", []string{"criu"}, startByGoCRIU}

// A goSubject is checkpointed and restored by that program.
type goSubject struct {
	*criuSubject
	engine string
}

func startByGoCRIU(t testing.TB, c *crew, _ string) subject {
	t.Helper()
	engine := filepath.Join(shared(t), "engine")
	if err := buildEngine(); err != nil {
		t.Fatal(err)
	}
	return &goSubject{startInNamespace(t, c, "", nstest.Fresh(t)), engine}
}

var buildEngine = sync.OnceValue(func() error { return build("engine", "./engine") })

func (s *goSubject) save(t testing.TB, args ...string) error {
	t.Helper()
	line := []string{"dump", s.dir, strconv.Itoa(s.k.pid)}
	if len(args) > 0 {
		line = append(line, "leave-running")
	}
	err := failure(exec.Command(s.engine, line...))
	if err == nil && len(args) == 0 {
		s.k.kill(t)
	}
	return err
}

func (s *goSubject) load(t testing.TB) error {
	t.Helper()
	var said strings.Builder
	cmd := exec.Command(s.engine, "restore", s.dir)
	cmd.Stderr = &said
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	line, _ := bufio.NewReader(out).ReadString('\n') // at the end of the engine: nothing
	pid, err := strconv.Atoi(strings.TrimSpace(line))
	if err != nil {
		return fmt.Errorf("engine: %w\n%s", cmd.Wait(), said.String())
	}
	k := &task{pid: pid, wait: sync.OnceValue(cmd.Wait)}
	t.Cleanup(func() { k.kill(t) })
	s.k = k
	return nil
}
