package plugin_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/ipc-cr/ipc-cr/images"
)

func imagePath(dir, kind string) string { return filepath.Join(dir, images.FileName(kind, 1)) }

// readImage returns the queues of an images directory. Without a file there are
// none.
func readImage(t testing.TB, dir string) (queues []queue) {
	t.Helper()
	path := imagePath(dir, images.MsgKind)
	data, err := os.ReadFile(path)
	if os.IsNotExist(err) {
		return nil
	}
	if err != nil {
		t.Fatal(err)
	}
	r, err := images.NewReader(path, bytes.NewReader(data), int64(len(data)))
	if err != nil {
		t.Fatal(err)
	}
	for {
		head, err := r.Queue()
		if errors.Is(err, io.EOF) {
			return queues
		}
		if err != nil {
			t.Fatal(err)
		}
		queues = append(queues, readImageQueue(t, r, head))
	}
}

func readVars(t testing.TB, dir string) *images.Vars {
	t.Helper()
	f, err := os.Open(imagePath(dir, images.VarKind))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	vars, err := images.ReadVars(f.Name(), f)
	if err != nil {
		t.Fatal(err)
	}
	return vars
}

func readImageQueue(t testing.TB, r *images.Reader, head *images.Queue) queue {
	t.Helper()
	q := queue{
		ID: int32(head.ID), Key: int32(head.Key), Mode: head.Mode, QBytes: uint64(head.QBytes),
		UID: head.UID, GID: head.GID, CUID: head.CUID, CGID: head.CGID,
	}
	for {
		m, err := r.Message()
		if errors.Is(err, io.EOF) {
			return q
		}
		if err != nil {
			t.Fatal(err)
		}
		q.Messages = append(q.Messages, message{m.Type, string(m.Bytes())})
	}
}

// rawMessage is a message of an image that need not be what it claims.
type rawMessage struct {
	Type, Size uint64
	Payload    []byte
}

func rawText(mtype uint64, text string) rawMessage {
	return rawMessage{mtype, uint64(len(text)), []byte(text)}
}

// rawQueue is a queue of an image that need not be what it claims.
type rawQueue struct {
	ID, Key, Mode, UID, CUID, QBytes, QNum uint64
	Messages                               []rawMessage
}

// hostileImage is a directory with CRIU's two files.
func hostileImage(t testing.TB, queues ...rawQueue) string {
	t.Helper()
	dir := saved(t)
	var b bytes.Buffer
	if err := images.WriteHeader(&b, images.MsgKind); err != nil {
		t.Fatal(err)
	}
	for _, q := range queues {
		b.Write(record(varints(protowire.AppendBytes(protowire.AppendTag(nil, 1, protowire.BytesType),
			varints(nil, 1, q.Key, q.UID, q.UID, q.CUID, q.CUID, q.Mode, q.ID)), 2, q.QBytes, q.QNum)))
		for _, m := range q.Messages {
			b.Write(record(varints(nil, 1, m.Type, m.Size)))
			b.Write(append(m.Payload, make([]byte, -len(m.Payload)&7)...))
		}
	}
	if err := os.WriteFile(imagePath(dir, images.MsgKind), b.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	withoutManifest(t, dir)
	return dir
}

// varints appends fields of consecutive numbers.
func varints(b []byte, first protowire.Number, values ...uint64) []byte {
	for i, v := range values {
		b = protowire.AppendVarint(protowire.AppendTag(b, first+protowire.Number(i), protowire.VarintType), v)
	}
	return b
}

func record(body []byte) []byte {
	return append(binary.LittleEndian.AppendUint32(nil, uint32(len(body))), body...)
}
