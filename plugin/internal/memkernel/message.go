package memkernel

import (
	"encoding/binary"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/ipc-cr/ipc-cr/plugin/internal/kernel"
)

// message is mtype in native byte order and payload, as in struct msgbuf.
type message []byte

func (m message) size() int { return len(m) - kernel.HeaderLen }

// Send implements kernel.Kernel.
func (t *Task) Send(id int32, buf []byte) error {
	if err := t.enter("Send"); err != nil {
		return err
	}
	defer t.space.mu.Unlock()
	m := message(buf)
	if int64(m.size()) > t.space.sysctls[msgmax][0] || int64(binary.NativeEndian.Uint64(m)) < 1 {
		return errInvalid
	}
	q, err := t.space.find(id)
	if err != nil {
		return err
	}
	if q.CBytes+uint64(m.size()) > q.QBytes || q.QNum+1 > q.QBytes {
		return unix.EAGAIN
	}
	q.messages = append(q.messages, slices.Clone(m))
	q.CBytes += uint64(m.size())
	q.QNum++
	q.LSPID, q.STime = t.pid, now()
	return nil
}

// Copy implements kernel.Kernel.
func (t *Task) Copy(id int32, buf []byte, index int) (int, error) {
	if err := t.enter("Copy"); err != nil {
		return 0, err
	}
	defer t.space.mu.Unlock()
	q, err := t.space.find(id)
	if err != nil {
		return 0, err
	}
	if index >= len(q.messages) {
		return 0, unix.ENOMSG
	}
	m := q.messages[index]
	switch {
	case len(m) > len(buf):
		return 0, unix.E2BIG
	case int64(m.size()) > t.space.sysctls[msgmax][0]:
		return 0, errInvalid
	}
	copy(buf, m)
	return m.size(), nil
}

// Receive takes the oldest message out of a queue: msgrcv(2) of type 0 with
// IPC_NOWAIT.
func (t *Task) Receive(id int32) ([]byte, error) {
	if err := t.enter("Receive"); err != nil {
		return nil, err
	}
	defer t.space.mu.Unlock()
	q, err := t.space.find(id)
	if err != nil {
		return nil, err
	}
	if len(q.messages) == 0 {
		return nil, unix.ENOMSG
	}
	m := q.messages[0]
	q.messages = q.messages[1:]
	q.CBytes -= uint64(m.size())
	q.QNum--
	q.LRPID, q.RTime = t.pid, now()
	return m, nil
}
