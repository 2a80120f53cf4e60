package e2e_test

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"testing"
)

// critQueue is a queue as crit prints it. Header and payload of the messages
// take turns in Extra.
type critQueue struct {
	Desc struct {
		Key                            uint32
		UID, GID, CUID, CGID, Mode, ID int
	}
	Qbytes, Qnum int
	Extra        []json.RawMessage
}

// critQueues returns the queues of an ipcns-msg file as crit reads it.
func critQueues(t testing.TB, path string) []queue {
	t.Helper()
	var image struct {
		Magic   string
		Entries []critQueue
	}
	crit(t, path, &image)
	if image.Magic != "IPCNS_MSG" {
		t.Errorf("%s has magic %q, want IPCNS_MSG", path, image.Magic)
	}
	var found []queue
	for _, entry := range image.Entries {
		q, err := entry.queue()
		if err != nil {
			t.Fatalf("crit show %s: %v", path, err)
		}
		found = append(found, q)
	}
	return found
}

func (c *critQueue) queue() (queue, error) {
	d := &c.Desc
	q := queue{
		ID: d.ID, Key: int(int32(d.Key)), Mode: d.Mode, Qbytes: c.Qbytes,
		UID: d.UID, GID: d.GID, CUID: d.CUID, CGID: d.CGID,
	}
	if len(c.Extra) != 2*c.Qnum {
		return q, fmt.Errorf("queue %d: %d messages, but qnum %d", d.ID, len(c.Extra)/2, c.Qnum)
	}
	for i := 0; i < len(c.Extra); i += 2 {
		m, err := critMessage(c.Extra[i], c.Extra[i+1])
		if err != nil {
			return q, fmt.Errorf("queue %d, message %d: %w", d.ID, i/2, err)
		}
		q.Messages = append(q.Messages, m)
	}
	return q, nil
}

func critMessage(header, payload json.RawMessage) (message, error) {
	var head struct {
		Mtype int64
		Msize int
	}
	var text string
	if err := json.Unmarshal(header, &head); err != nil {
		return message{}, err
	}
	if err := json.Unmarshal(payload, &text); err != nil {
		return message{}, err
	}
	body, err := base64.StdEncoding.DecodeString(text) // which skips the line ends
	if err == nil && len(body) != head.Msize {
		err = fmt.Errorf("%d bytes, but msize %d", len(body), head.Msize)
	}
	return message{head.Mtype, string(body)}, err
}
