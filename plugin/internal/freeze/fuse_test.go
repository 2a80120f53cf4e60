package freeze

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ipc-cr/ipc-cr/nsenter/nstest"
)

// sluggish is a FUSE file system with one file, "program", that answers no read(2)
// before it is told to: then it is an empty script. (fuse(4), and
// include/uapi/linux/fuse.h for the messages.)
type sluggish struct {
	dev    *os.File
	dir    string
	asked  chan struct{} // for each read
	answer chan struct{} // closed when reads are answered
}

func mountSluggish(t *testing.T) *sluggish {
	t.Helper()
	nstest.Require(t, "fuse")
	fd, err := unix.Open("/dev/fuse", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	s := &sluggish{dev: os.NewFile(uintptr(fd), "/dev/fuse"), dir: t.TempDir(), asked: make(chan struct{}, 100), answer: make(chan struct{})}
	if err := unix.Mount("sluggish", s.dir, "fuse.sluggish", unix.MS_NODEV|unix.MS_NOSUID, fmt.Sprintf("fd=%d,rootmode=40000,user_id=0,group_id=0", fd)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Unmount(s.dir, unix.MNT_DETACH); s.dev.Close() }) // which ends what waits for it
	go s.serve()
	return s
}

// fuseHeader begins each request.
type fuseHeader struct {
	Len, Opcode    uint32
	Unique, NodeID uint64
	UID, GID, PID  uint32
	Extra          uint32
}

const (
	fuseLookup      = 1
	fuseForget      = 2
	fuseGetattr     = 3
	fuseOpen        = 14
	fuseRead        = 15
	fuseRelease     = 18
	fuseInit        = 26
	fuseInterrupt   = 36
	fuseBatchForget = 42
)

func (s *sluggish) serve() {
	buf := make([]byte, 64<<10)
	for {
		n, err := s.dev.Read(buf)
		if errors.Is(err, unix.EINTR) || errors.Is(err, unix.ENOENT) {
			continue
		}
		if err != nil {
			return // unmounted
		}
		var h fuseHeader
		_ = binary.Read(bytes.NewReader(buf[:n]), binary.NativeEndian, &h)
		switch h.Opcode {
		case fuseForget, fuseBatchForget, fuseInterrupt:
		case fuseInit:
			s.reply(h, 0, [8]uint32{7, 31, 4096, 0, 12 | 9<<16, 4096, 1, 1}, [8]uint32{})
		case fuseLookup:
			s.reply(h, 0, [4]uint64{2, 0, 1 << 20, 1 << 20}, [2]uint32{}, attr(2))
		case fuseGetattr:
			s.reply(h, 0, [2]uint64{1 << 20}, attr(h.NodeID))
		case fuseOpen:
			s.reply(h, 0, [2]uint64{})
		case fuseRelease:
			s.reply(h, 0)
		case fuseRead:
			s.asked <- struct{}{}
			go func() { <-s.answer; s.reply(h, 0, []byte("#\n")) }()
		default:
			s.reply(h, unix.ENOSYS)
		}
	}
}

// attr is struct fuse_attr, of the directory (1) or the file (2).
func attr(node uint64) any {
	mode := uint32(unix.S_IFREG | 0o755)
	if node == 1 {
		mode = unix.S_IFDIR | 0o755
	}
	return struct {
		Ino, Size, Blocks uint64
		Times             [3]uint64
		Nsec              [3]uint32
		Mode, Nlink       uint32
		Rest              [5]uint32
	}{Ino: node, Size: 4096, Blocks: 8, Mode: mode, Nlink: 1}
}

func (s *sluggish) reply(h fuseHeader, failure unix.Errno, body ...any) {
	var b bytes.Buffer
	for _, part := range body {
		_ = binary.Write(&b, binary.NativeEndian, part)
	}
	var out bytes.Buffer
	_ = binary.Write(&out, binary.NativeEndian, struct {
		Len    uint32
		Error  int32
		Unique uint64
	}{uint32(16 + b.Len()), -int32(failure), h.Unique})
	out.Write(b.Bytes())
	_, _ = s.dev.Write(out.Bytes())
}

// executeProgram PATH is a process of one thread in execve(2) of the file, if that does
// not end.
var executeProgram = nstest.Program("freeze.execute", func(args []string) {
	panic(unix.Exec("/bin/sh", []string{"sh", "-c", "exec " + args[0]}, os.Environ()))
})

// A process that executes a file whose file system does not answer keeps nobody from
// being held, and let go: whoever lives in a namespace can serve such a file.
func TestExecveOfSilentFile(t *testing.T) {
	fs := mountSluggish(t)
	ns, c := nstest.Fresh(t), newCounters(t)
	nstest.Start(t, ns, busyProgram, c.Path, "2", "0")
	shell := nstest.Start(t, ns, executeProgram, filepath.Join(fs.dir, "program"))
	<-fs.asked
	c.waitMoved(t, 2)
	s := mustStop(t, ns, Options{})
	if r := s.Report(); len(r.Loose) != 1 || r.Loose[0].PID != shell.PID() || !strings.Contains(r.Loose[0].Why, "in execve") {
		t.Errorf("loose: %+v, want pid %d alone, in execve", r.Loose, shell.PID())
	}
	for _, task := range tasksOf(t, ns.Inode()) {
		if task.pid != shell.PID() && (task.state != 't' || !s.traces(task.tracer)) {
			t.Errorf("pid %d tid %d is in state %c, traced by %d; want t, traced by us", task.pid, task.tid, task.state, task.tracer)
		}
	}
	mustRelease(t, s)
	c.waitMoved(t, 2)
	if slices.ContainsFunc(tasksOf(t, ns.Inode()), func(task seen) bool { return task.tracer != 0 }) {
		t.Error("somebody is traced still")
	}
	close(fs.answer)
	mustEndTracers(t, ns)
}
