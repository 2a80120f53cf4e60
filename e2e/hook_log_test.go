package e2e_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ipc-cr/ipc-cr/nsenter/nstest"
)

// TestHookLog wants what the hook has said to be known when podman has deleted CRIU's
// logs, and why a checkpoint or a restore failed: podman says that criu has.
func TestHookLog(t *testing.T) {
	nstest.Require(t, byPodman.needs...)
	leavesNothing(t)
	planted, cleared := at(t, "post-dump", plant), at(t, "pre-dump", unplant)
	p, c := newPodman(t), newCrew(t, talking...)
	sub := p.worker(t, c, hookConf(t, cleared.script, planted.script), "one")
	c.works(t)
	everything.make(t, nsOf(t, sub))
	n := len(queues(t, nsOf(t, sub)))
	log := &hookLog{id: p.run(t, "inspect", "--format", "{{.Id}}", "one")}

	if sub.save(t) == nil {
		t.Fatal("the checkpoint succeeds")
	}
	log.wantNext(t, "post-dump: error: ", "ipc-cr-", "is a directory")
	planted.over(t)
	mustSave(t, sub)
	if logs, _ := filepath.Glob(p.dir + "/root/vfs-containers/*/userdata/dump.log"); len(logs) > 0 {
		t.Errorf("podman keeps %q: what is the log for?", logs)
	}
	log.wantNext(t, fmt.Sprintf("post-dump: %d queues, ", n), " messages verified")

	images, _ := filepath.Glob(p.dir + "/root/vfs-containers/*/userdata/checkpoint/ipcns-msg-*.img")
	if len(images) != 1 {
		t.Fatalf("images %q", images)
	}
	whole, err := os.ReadFile(images[0])
	if err != nil {
		t.Fatal(err)
	}
	writeFile(t, images[0], string(whole[:len(whole)-8]))
	if sub.load(t) == nil {
		t.Fatal("the restore succeeds")
	}
	failedRestoreEnds(t, sub)
	log.wantNext(t, "post-setup-namespaces: error: restore ", images[0])
	writeFile(t, images[0], string(whole))
	mustLoad(t, sub)
	log.wantNext(t, fmt.Sprintf("post-setup-namespaces: %d queues, ", n), fmt.Sprintf(": %d made", n))
	c.works(t)
}

// hookLog is what ipc-cr log prints of one container of podman's, which has its id in
// the path of every file.
type hookLog struct {
	id   string
	seen int
}

// wantNext wants one more line, which begins with the action and holds the texts.
func (l *hookLog) wantNext(t *testing.T, action string, texts ...string) {
	t.Helper()
	var lines []string
	for line := range strings.Lines(run(t, "log")) {
		if _, of, _ := strings.Cut(line, " "); strings.HasPrefix(of, l.id[:12]+" ") {
			lines = append(lines, strings.TrimPrefix(of, l.id[:12]+" "))
		}
	}
	if len(lines) != l.seen+1 {
		t.Fatalf("the log has %d lines, want one more than %d:\n%s", len(lines), l.seen, strings.Join(lines, ""))
	}
	l.seen++
	last := lines[l.seen-1]
	for _, text := range append(texts, action) {
		if !strings.Contains(last, text) || !strings.HasPrefix(last, action) {
			t.Errorf("the log says %q, want %q", last, text)
		}
	}
}

// withSyslog is a script for a mount namespace of its own, in which there is /dev/log.
const withSyslog = `set -e
mount --rbind /dev %[1]s/dev
mount -t overlay dev -o lowerdir=/dev,upperdir=%[1]s/upper,workdir=%[1]s/work /dev
for dir in pts shm; do mount --rbind %[1]s/dev/$dir /dev/$dir; done
ln -s %[1]s/log /dev/log
exec "$@"
`

// listen makes a socket of datagrams. Package net would make this binary, which is a
// container's program too, one that needs a C library.
func listen(t *testing.T, path string) (fd int) {
	t.Helper()
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err == nil {
		t.Cleanup(func() { unix.Close(fd) })
		err = unix.Bind(fd, &unix.SockaddrUnix{Name: path})
	}
	if err != nil {
		t.Fatal(err)
	}
	return fd
}

// TestHookSyslog wants each line in the system log, as one that CRIU started.
func TestHookSyslog(t *testing.T) {
	nstest.Require(t, byRunc.needs...)
	leavesNothing(t)
	place, err := os.MkdirTemp(shared(t), "syslog-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(place) })
	for _, dir := range []string{"dev", "upper", "work"} {
		if err := os.Mkdir(filepath.Join(place, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	syslog := listen(t, filepath.Join(place, "log"))

	c := newCrew(t, talking...)
	sub := startByRunc(t, c, hookConf(t))
	c.works(t)
	sub.through = []string{"unshare", "--mount", "--propagation", "private", "sh", "-c", fmt.Sprintf(withSyslog, place), "sh"}
	pid := sub.pid(t)
	mustSave(t, sub)
	buf := make([]byte, 1<<16)
	n, _, err := unix.Recvfrom(syslog, buf, unix.MSG_DONTWAIT) // it was sent before CRIU went on
	if err != nil {
		t.Fatalf("nothing comes: %v\n%s", err, sub.logs())
	}
	want := fmt.Sprintf(": pid:%d post-dump: 1 queue, ", pid)
	if got := string(buf[:n]); !strings.HasPrefix(got, "<30>") || !strings.Contains(got, " ipc-cr[") || !strings.Contains(got, want) || !strings.HasSuffix(got, " verified") {
		t.Errorf("the system log gets %q, want %q", got, want)
	}
	mustLoad(t, sub)
	c.works(t)
}
