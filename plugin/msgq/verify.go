package msgq

import (
	"fmt"

	"github.com/ipc-cr/ipc-cr/images"
	"github.com/ipc-cr/ipc-cr/plugin/internal/kernel"
	"github.com/ipc-cr/ipc-cr/plugin/internal/kind"
)

var _ kind.Verifier = (*image)(nil)

// Verify implements kind.Verifier: the same queues, with the same owners, modes
// and limits, and as many messages and bytes.
func (img *image) Verify(t *kind.Target, k kernel.Kernel, live kind.Survey) (kind.Verified, error) {
	queues, err := stat(t.Space, k)
	if err != nil {
		return kind.Verified{}, err
	}
	live.(*survey).queues = queues
	records := make(map[uint32]*record, len(img.records))
	for i := range img.records {
		records[img.records[i].ID] = &img.records[i]
	}
	v := kind.Verified{Details: images.Details{[]byte("[]")}}
	if len(queues) == 0 {
		v.Difference = img.left(records)
		return v, nil
	}
	d := details{lines: make([]byte, 0, detailSize*len(queues))}
	for i := range queues {
		q := &queues[i]
		r := records[uint32(q.ID)]
		if v.Difference == "" {
			v.Difference = unlike(q, r)
		}
		if r == nil {
			continue
		}
		d.add(q, images.Sum(r.sum))
		delete(records, r.ID)
	}
	if v.Difference == "" {
		v.Difference = img.left(records)
	}
	if len(d.lines) > 0 {
		v.Details = images.Details{[]byte("["), d.lines[1:], []byte("\n    ]")} // the comma separates two lines
	}
	return v, nil
}

// left names the first queue of the image that no live one was found for.
func (img *image) left(records map[uint32]*record) string {
	if len(records) == 0 {
		return ""
	}
	for i := range img.records {
		if r := &img.records[i]; records[r.ID] != nil {
			return fmt.Sprintf("%s: is in the image, and not in the namespace", &r.Queue)
		}
	}
	return ""
}

// unlike tells in what a live queue differs from its record, "" for nothing.
func unlike(q *kernel.Queue, r *record) string {
	switch {
	case r == nil:
		return name(q) + ": is in the namespace, and not in the image"
	case uint32(q.Key) != r.Key:
		return fmt.Sprintf("%s: its key is %#x in the image", name(q), r.Key)
	case q.QNum != uint64(r.QNum) || q.CBytes != uint64(r.bytes):
		return fmt.Sprintf("%s: %d messages of %d bytes in all in the image, %d of %d in the namespace",
			name(q), r.QNum, r.bytes, q.QNum, q.CBytes)
	}
	if field := difference(q, r); field != "" {
		return fmt.Sprintf("%s: its %s is another in the image", name(q), field)
	}
	return ""
}
