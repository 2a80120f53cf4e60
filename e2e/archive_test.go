package e2e_test

import (
	"encoding/json"
	"errors"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/ipc-cr/ipc-cr/nsenter/nstest"
)

// What podman exports can be looked into as it is.
func TestShowPodmanArchive(t *testing.T) {
	nstest.Require(t, "criu", "podman")
	p := newPodman(t)
	p.start(t, "one")
	ns := namespaceOf(t, p.pid(t, "one"))
	saved := ordinary(t, ns, 0)
	for _, compression := range []string{"none", "gzip", "zstd"} {
		t.Run(compression, func(t *testing.T) {
			archive := filepath.Join(t.TempDir(), "one.tar")
			p.run(t, "container", "checkpoint", "--leave-running", "--export", archive, "--compress", compression, "one")
			compareQueues(t, saved, shownQueues(t, archive))
			text := run(t, "show", archive)
			for _, want := range []string{"0x1234", "0xfffffffb", "msgmnb 16384"} {
				if !strings.Contains(text, want) {
					t.Errorf("show does not say %q:\n%s", want, text)
				}
			}
		})
	}
}

// shownQueues returns what ipc-cr shows of images.
func shownQueues(t testing.TB, path string) []queue {
	t.Helper()
	var document struct {
		Files []struct{ Queues []shownQueue }
	}
	text := run(t, "show", "--json", "--messages", path)
	if err := json.Unmarshal([]byte(text), &document); err != nil {
		t.Fatalf("ipc-cr show %s: %v\n%s", path, err, text)
	}
	var found []queue
	for _, file := range document.Files {
		for _, q := range file.Queues {
			found = append(found, q.queue(t))
		}
	}
	return found
}

// shownQueue is a queue as show prints it: the key in hexadecimal, the mode in octal.
type shownQueue struct {
	Key, Mode                   string
	Msqid, UID, GID, CUID, CGID int
	Qbytes, Qnum, Bytes         int
	Messages                    []struct {
		Mtype   int64
		Msize   int
		Payload []byte
	}
}

func (s *shownQueue) queue(t testing.TB) queue {
	t.Helper()
	key, keyErr := strconv.ParseUint(s.Key, 0, 32)
	mode, modeErr := strconv.ParseUint(s.Mode, 0, 32)
	if err := errors.Join(keyErr, modeErr); err != nil {
		t.Fatalf("ipc-cr show: queue %d: %v", s.Msqid, err)
	}
	q := queue{
		ID: s.Msqid, Key: int(int32(key)), Mode: int(mode), Qbytes: s.Qbytes,
		UID: s.UID, GID: s.GID, CUID: s.CUID, CGID: s.CGID,
	}
	bytes := 0
	for _, m := range s.Messages {
		q.Messages = append(q.Messages, message{m.Mtype, string(m.Payload)})
		bytes += m.Msize
	}
	if bytes != s.Bytes || len(s.Messages) != s.Qnum {
		t.Errorf("ipc-cr show: queue %d: %d bytes in %d messages, but bytes %d, qnum %d", s.Msqid, bytes, len(s.Messages), s.Bytes, s.Qnum)
	}
	return q
}
