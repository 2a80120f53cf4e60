package msgq

import (
	"strconv"
	"time"

	"github.com/ipc-cr/ipc-cr/images"
	"github.com/ipc-cr/ipc-cr/plugin/internal/kernel"
)

// details are lines of the JSON file, one a queue: what CRIU's format cannot
// hold, and the content's checksum. Fields that are zero are left out. They are
// put together by hand because there can be very many.
type details struct {
	lines  []byte
	second int64
	text   []byte // second in RFC 3339
}

// detailSize is about the length of a line.
const detailSize = 144

func (d *details) add(q *kernel.Queue, sum images.Sum) {
	b := append(d.lines, ",\n      {\"msqid\":"...)
	b = strconv.AppendInt(b, int64(q.ID), 10)
	b = append(b, `,"crc32c":"`...)
	b, _ = sum.AppendText(b)
	b = append(b, '"')
	b = pid(b, `,"lspid":`, q.LSPID)
	b = pid(b, `,"lrpid":`, q.LRPID)
	b = d.time(b, `,"stime":`, q.STime)
	b = d.time(b, `,"rtime":`, q.RTime)
	b = d.time(b, `,"ctime":`, q.CTime)
	d.lines = append(b, '}')
}

func pid(b []byte, field string, pid int32) []byte {
	if pid == 0 {
		return b
	}
	return strconv.AppendInt(append(b, field...), int64(pid), 10)
}

// time appends a time in RFC 3339. Most queues share a second.
func (d *details) time(b []byte, field string, second int64) []byte {
	if second == 0 {
		return b
	}
	if second != d.second {
		d.second = second
		d.text = time.Unix(second, 0).UTC().AppendFormat(append(d.text[:0], '"'), time.RFC3339)
		d.text = append(d.text, '"')
	}
	return append(append(b, field...), d.text...)
}
