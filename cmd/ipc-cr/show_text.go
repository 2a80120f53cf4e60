package main

import (
	"bufio"
	"fmt"

	"github.com/ipc-cr/ipc-cr/images"
	"github.com/ipc-cr/ipc-cr/images/inspect"
	"github.com/ipc-cr/ipc-cr/nsenter"
)

// showText shows images as text.
type showText struct {
	w        *bufio.Writer
	messages bool
	index    int
	queues   int
}

func (s *showText) Begin(f inspect.File) error {
	s.queues = 0
	_, err := fmt.Fprintf(s.w, "%s\n", f.Name)
	return err
}

func (s *showText) End(inspect.File) error { return nil }

func (s *showText) Manifest(m *images.Manifest) error {
	_, err := fmt.Fprintf(s.w, "  checkpoint of %s on %s, method %q\n", nsenter.Name(m.Namespace.Inode, false), m.Created.Format("2006-01-02T15:04:05Z07:00"), m.Method)
	for _, warning := range m.Warnings {
		fmt.Fprintf(s.w, "  warning: %s\n", printable(warning))
	}
	return err
}

func (s *showText) Vars(v *images.Vars) error {
	_, err := fmt.Fprintf(s.w, "  msgmax %d, msgmnb %d, msgmni %d\n", v.MsgMax, v.MsgMnb, v.MsgMni)
	return err
}

func (s *showText) Queue(q *images.Queue) error {
	if s.queues == 0 {
		_ = s.row("msqid", "key", "mode", "uid", "gid", "cuid", "cgid", "qbytes", "qnum", "bytes")
	}
	s.queues++
	s.index = 0
	if !s.messages {
		return nil
	}
	return s.queue(q, "-") // not known before the last message
}

func (s *showText) queue(q *images.Queue, bytes any) error {
	return s.row(q.ID, fmt.Sprintf("%#x", q.Key), fmt.Sprintf("%#o", q.Mode),
		q.UID, q.GID, q.CUID, q.CGID, q.QBytes, q.QNum, bytes)
}

// row prints the columns of a queue.
func (s *showText) row(columns ...any) error {
	_, err := fmt.Fprintf(s.w, "  %10v %10v %-5v %6v %6v %6v %6v %10v %8v %10v\n", columns...)
	return err
}

func (s *showText) EndQueue(q *images.Queue, bytes int64) error {
	if s.messages {
		return nil
	}
	return s.queue(q, bytes)
}

// preview is how much of a payload a line shows.
const preview = 48

func (s *showText) Message(m *images.Payload) error {
	if !s.messages {
		return nil
	}
	text, more := m.Bytes(), ""
	if len(text) > preview {
		text, more = text[:preview], "..."
	}
	_, err := fmt.Fprintf(s.w, "      %6d  mtype %-10d size %-8d %q%s\n", s.index, m.Type, m.Size, text, more)
	s.index++
	return err
}
