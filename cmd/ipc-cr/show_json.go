package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"

	"github.com/ipc-cr/ipc-cr/images"
	"github.com/ipc-cr/ipc-cr/images/inspect"
)

// showJSON shows images as one JSON document, written as it is read: an image
// may be larger than memory.
type showJSON struct {
	w        *bufio.Writer
	messages bool
	files    int
	queues   int
	index    int
}

// queueJSON is a queue in the document; "bytes" and "messages" follow.
type queueJSON struct {
	Key  string `json:"key"`
	Mode string `json:"mode"`
	*images.Queue
}

// messageJSON is a message in the document.
type messageJSON struct {
	Type    int64  `json:"mtype"`
	Size    uint32 `json:"msize"`
	Payload []byte `json:"payload"`
}

func (s *showJSON) Begin(f inspect.File) error {
	open := ","
	if s.files == 0 {
		open = `{"files": [`
	}
	s.files++
	s.queues = 0
	fmt.Fprint(s.w, open, "\n")
	if err := s.open(f); err != nil {
		return err
	}
	if f.Kind == images.MsgKind {
		fmt.Fprint(s.w, `, "queues": [`)
	}
	return nil
}

// open writes an object without its closing brace.
func (s *showJSON) open(v any) error {
	text, err := json.Marshal(v)
	if err != nil {
		return err
	}
	_, err = s.w.Write(bytes.TrimSuffix(text, []byte("}")))
	return err
}

func (s *showJSON) field(name string, v any) error {
	text, err := json.Marshal(v)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(s.w, ", %q: %s", name, text)
	return err
}

func (s *showJSON) Manifest(m *images.Manifest) error { return s.field("manifest", m) }

func (s *showJSON) Vars(v *images.Vars) error { return s.field("sysctls", v) }

func (s *showJSON) Queue(q *images.Queue) error {
	s.separate(&s.queues)
	s.index = 0
	if err := s.open(queueJSON{Key: fmt.Sprintf("%#x", q.Key), Mode: fmt.Sprintf("%#o", q.Mode), Queue: q}); err != nil {
		return err
	}
	if s.messages {
		fmt.Fprint(s.w, `, "messages": [`)
	}
	return nil
}

func (s *showJSON) separate(count *int) {
	if *count > 0 {
		fmt.Fprint(s.w, ",")
	}
	fmt.Fprint(s.w, "\n  ")
	*count++
}

func (s *showJSON) Message(m *images.Payload) error {
	if !s.messages {
		return nil
	}
	s.separate(&s.index)
	text, err := json.Marshal(messageJSON{Type: m.Type, Size: m.Size, Payload: m.Bytes()})
	if err != nil {
		return err
	}
	_, err = s.w.Write(text)
	return err
}

func (s *showJSON) EndQueue(_ *images.Queue, bytes int64) error {
	if s.messages {
		fmt.Fprint(s.w, "]")
	}
	_, err := fmt.Fprintf(s.w, `, "bytes": %d}`, bytes)
	return err
}

func (s *showJSON) End(f inspect.File) error {
	if f.Kind == images.MsgKind {
		fmt.Fprint(s.w, "]")
	}
	_, err := fmt.Fprint(s.w, "}")
	return err
}
