package images_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"testing"

	ipcdesc "github.com/checkpoint-restore/go-criu/v7/crit/images/ipc-desc"
	ipcmsg "github.com/checkpoint-restore/go-criu/v7/crit/images/ipc-msg"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"

	"github.com/ipc-cr/ipc-cr/images"
	"github.com/ipc-cr/ipc-cr/nsenter/nstest"
)

func TestMain(m *testing.M) { nstest.Main(m) }

// msgMagic opens an ipcns-msg image, as CRIU's criu/include/magic.h has it.
const msgMagic = "\x19\x43\x56\x54\x37\x37\x45\x55"

// A queue is a queue of an image with its messages.
type queue struct {
	images.Queue
	Messages []message
}

type message struct {
	Type int64
	Body []byte
}

// pattern is the payload that testdata/criu/make.py gives to a message.
func pattern(size int) []byte {
	b := make([]byte, size)
	for i := range b {
		b[i] = byte((i*7 + size) % 251)
	}
	return b
}

// The generated encoder of protobuf makes what is expected of ours.

func wantRecord(t testing.TB, m proto.Message) []byte {
	t.Helper()
	body, err := proto.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return append(binary.LittleEndian.AppendUint32(nil, uint32(len(body))), body...)
}

func wantQueue(t testing.TB, q *images.Queue) []byte {
	t.Helper()
	return wantRecord(t, &ipcmsg.IpcMsgEntry{
		Desc: &ipcdesc.IpcDescEntry{
			Key: &q.Key, Uid: &q.UID, Gid: &q.GID, Cuid: &q.CUID, Cgid: &q.CGID, Mode: &q.Mode, Id: &q.ID,
		},
		Qbytes: &q.QBytes, Qnum: &q.QNum,
	})
}

func wantMessage(t testing.TB, m message) []byte {
	t.Helper()
	record := wantRecord(t, &ipcmsg.IpcMsg{
		Mtype: proto.Uint64(uint64(m.Type)), Msize: proto.Uint32(uint32(len(m.Body))),
	})
	record = append(record, m.Body...)
	for n := len(m.Body); n%8 != 0; n++ {
		record = append(record, 0)
	}
	return record
}

func wantImage(t testing.TB, queues ...queue) []byte {
	t.Helper()
	b := []byte(msgMagic)
	for _, q := range queues {
		b = append(b, wantQueue(t, &q.Queue)...)
		for _, m := range q.Messages {
			b = append(b, wantMessage(t, m)...)
		}
	}
	return b
}

// encode makes an image the way a checkpoint does.
func encode(t testing.TB, queues []queue) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := images.WriteHeader(&b, images.MsgKind); err != nil {
		t.Fatal(err)
	}
	var block images.Block
	for i := range queues {
		block.Queue(&queues[i].Queue)
		for _, m := range queues[i].Messages {
			put(&block, m, len(m.Body))
		}
	}
	b.Write(block.Bytes())
	return b.Bytes()
}

// put appends a message as msgrcv(2) does, into a place for room bytes. What is
// beyond the message is written over: the kernel may leave anything there.
func put(block *images.Block, m message, room int) {
	place := block.Room(room)
	for i := range place {
		place[i] = 0xee
	}
	binary.NativeEndian.PutUint64(place, uint64(m.Type))
	block.Message(copy(place[8:], m.Body))
}

// decode reads a whole image; size is what the reader is told of it.
func decode(src io.Reader, size int64) ([]queue, error) {
	r, err := images.NewReader("the image", src, size)
	if err != nil {
		return nil, err
	}
	return rest(r)
}

// rest reads the queues that are left.
func rest(r *images.Reader) (queues []queue, err error) {
	for {
		q, err := r.Queue()
		if errors.Is(err, io.EOF) {
			return queues, nil
		}
		if err != nil {
			return queues, err
		}
		messages, err := drain(r)
		queues = append(queues, queue{*q, messages})
		if err != nil {
			return queues, err
		}
	}
}

func drain(r *images.Reader) (messages []message, err error) {
	for {
		m, err := r.Message()
		if errors.Is(err, io.EOF) {
			return messages, nil
		}
		if err != nil {
			return messages, err
		}
		messages = append(messages, message{m.Type, bytes.Clone(m.Bytes())})
	}
}

// criuImages returns the images that CRIU made, by their case.
func criuImages(t testing.TB, kind string) map[string][]byte {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join("testdata", "criu", "*", kind+"-*.img"))
	if err != nil || len(paths) == 0 {
		t.Fatalf("%d images of CRIU's: %v", len(paths), err)
	}
	found := map[string][]byte{}
	for _, path := range paths {
		if found[filepath.Base(filepath.Dir(path))], err = os.ReadFile(path); err != nil {
			t.Fatal(err)
		}
	}
	return found
}

// diff is cmp.Diff, which takes long over equal payloads.
func diff(want, got any) string {
	if reflect.DeepEqual(want, got) {
		return ""
	}
	return cmp.Diff(want, got)
}

// must ends the test, or without one the process, on an error.
func must[T any](t testing.TB) func(T, error) T {
	return func(value T, err error) T {
		switch {
		case err == nil:
		case t == nil:
			panic(err)
		default:
			t.Helper()
			t.Fatal(err)
		}
		return value
	}
}
