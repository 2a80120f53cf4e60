package eventlog

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ipc-cr/ipc-cr/nsenter/nstest"
	"github.com/ipc-cr/ipc-cr/plugin/internal/state"
)

// listen is a system log at a path.
func listen(t *testing.T, path string) *net.UnixConn {
	t.Helper()
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

// next returns the next message, "" if there is none.
func next(t *testing.T, conn net.Conn) string {
	t.Helper()
	buf := make([]byte, 64<<10)
	if err := conn.SetReadDeadline(time.Now().Add(time.Second)); err != nil {
		t.Fatal(err)
	}
	n, err := conn.Read(buf)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return ""
	}
	if err != nil {
		t.Fatal(err)
	}
	return string(buf[:n])
}

func messages(e Entry) []string {
	head := fmt.Sprintf("%s ipc-cr[%d]: %s post-dump: ", e.Time.Local().Format("Jan _2 15:04:05"), os.Getpid(), e.Container)
	return []string{
		"<30>" + head + "3 queues, 17 messages verified; 2 tasks thawed",
		"<28>" + head + "warning: the first", "<28>" + head + `warning: the "second"`,
		"<27>" + head + "error: and yet it failed",
	}
}

// A message for each line, as syslog(3) would send it.
func TestSyslog(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	conn := listen(t, path)
	e := sample()
	toSyslog(path, &e)
	for _, want := range messages(e) {
		if got := next(t, conn); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
	for of, want := range map[*Entry]string{
		{Time: e.Time, Action: "guard", Error: "x", Init: 17, CRIU: 4}: ": pid:17 guard: error: x",
		{Time: e.Time, Action: "guard", Error: "x", CRIU: 4}:           ": criu:4 guard: error: x",
		{Time: e.Time, Action: "guard", Error: "x"}:                    ": - guard: error: x",
	} {
		toSyslog(path, of)
		if got := next(t, conn); !strings.HasSuffix(got, want) {
			t.Errorf("%q, want %q at the end", got, want)
		}
	}
}

// Long ones are cut at what RFC 3164 allows.
func TestSyslogLong(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	conn := listen(t, path)
	toSyslog(path, &Entry{Time: time.Now(), Action: "post-dump", Error: strings.Repeat("é", 1000)})
	got := next(t, conn)
	if len(got) > 1024 || len(got) < 1000 || !strings.HasSuffix(got, " bytes in all)") || !strings.Contains(got, "error: éé") {
		t.Errorf("%d bytes: %q", len(got), got)
	}
}

// Some system logs listen at a stream.
func TestSyslogStream(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	listener, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	e := sample()
	toSyslog(path, &e)
	conn, err := listener.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if got, want := next(t, conn), strings.Join(messages(e), "\x00")+"\x00"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

// A system log that nobody reads is not waited for, nor one that is not there.
func TestSyslogDoesNotWait(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "log")
	conn := listen(t, path)
	stream := filepath.Join(dir, "stream")
	listener, err := net.Listen("unix", stream)
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	if err := os.WriteFile(filepath.Join(dir, "file"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	e := sample()
	e.bound()
	done := make(chan struct{})
	go func() {
		defer close(done)
		for range 5000 { // net.unix.max_dgram_qlen is 10 by default, somaxconn 4096
			toSyslog(path, &e)
			toSyslog(stream, &e)
		}
		for _, name := range []string{"missing", "file", "missing/log"} {
			toSyslog(filepath.Join(dir, name), &e)
		}
		toSyslog(dir, &e)
	}()
	select {
	case <-done:
	case <-time.After(20 * time.Second):
		t.Fatal("it waits")
	}
	if got := next(t, conn); got != messages(e)[0] {
		t.Errorf("the first message is %q", got)
	}
}

// privateProgram writes an entry where a mount namespace of its own has a state
// directory and a system log, and prints both.
var privateProgram = nstest.Program("eventlog.private", func([]string) {
	for _, err := range []error{
		unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""),
		unix.Mount("run", "/run", "tmpfs", 0, "mode=0755"),
		unix.Mount("dev", "/dev", "tmpfs", 0, "mode=0755"),
	} {
		if err != nil {
			panic(err)
		}
	}
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: "/dev/log", Net: "unixgram"})
	if err != nil {
		panic(err)
	}
	if err := WriteHere(sample()); err != nil {
		panic(err)
	}
	dir, err := state.Existing()
	if err != nil {
		panic(err)
	}
	entries, _, err := Read(dir)
	if err != nil {
		panic(err)
	}
	fmt.Println(dir.Path(), len(entries), entries[0].Error)
	buf := make([]byte, 64<<10)
	for range 4 {
		n, err := conn.Read(buf)
		if err != nil {
			panic(err)
		}
		_, text, _ := strings.Cut(string(buf[:n]), "]: ")
		fmt.Println(text)
	}
})

// The places are those that everybody knows.
func TestWhere(t *testing.T) {
	nstest.Require(t, "root")
	p := nstest.StartIn(t, &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNS}, privateProgram)
	out := []string{"/run/ipc-cr 1 and yet it failed"}
	for _, message := range messages(sample()) {
		_, text, _ := strings.Cut(message, "]: ")
		out = append(out, text)
	}
	for _, want := range out {
		got, err := p.Stdout.ReadString('\n')
		if err != nil || strings.TrimSuffix(got, "\n") != want {
			t.Fatalf("%q, %v, want %q", got, err, want)
		}
	}
}
