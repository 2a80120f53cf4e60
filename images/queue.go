package images

import (
	"strconv"

	"google.golang.org/protobuf/encoding/protowire"
)

// Queue is the head of a message queue in an ipcns-msg image: CRIU's
// ipc_msg_entry with its ipc_desc_entry. uids and gids are those of the user
// namespace that owns the IPC namespace.
type Queue struct {
	ID     uint32 `json:"msqid"`
	Key    uint32 `json:"-"`
	UID    uint32 `json:"uid"`
	GID    uint32 `json:"gid"`
	CUID   uint32 `json:"cuid"`
	CGID   uint32 `json:"cgid"`
	Mode   uint32 `json:"-"`
	QBytes uint32 `json:"qbytes"`
	QNum   uint32 `json:"qnum"` // messages that follow in the image
}

// String names the queue as errors do: "queue 4242 (key 0x1234)".
func (q *Queue) String() string { return QueueName(q.ID, q.Key) }

// QueueName names a queue as errors do. A report has one for every queue.
func QueueName(id, key uint32) string {
	name := append(make([]byte, 0, len("queue 2147483647 (key 0xffffffff)")), "queue "...)
	name = strconv.AppendUint(name, uint64(id), 10)
	if key == 0 {
		return string(append(name, " (private)"...))
	}
	name = strconv.AppendUint(append(name, " (key 0x"...), uint64(key), 16)
	return string(append(name, ')'))
}

// Message is the head of a message: CRIU's ipc_msg.
type Message struct {
	Type int64  // mtype, at least 1
	Size uint32 // msize, bytes of payload
}

// The field numbers of CRIU's images/ipc-desc.proto and images/ipc-msg.proto.
// They are encoded by hand because there is one such record for every message:
// the generated code allocates and costs more than the system call it follows.
// A test holds them against go-criu's generated types.
const (
	descKey, descUID, descGID, descCUID, descCGID, descMode, descID = 1, 2, 3, 4, 5, 6, 7

	entryDesc, entryQBytes, entryQNum = 1, 2, 3

	msgType, msgSize = 1, 2
)

// pad is what the payload's length is rounded up to.
const pad = 8

func padding(size int) int { return -size & (pad - 1) }

func appendField(b []byte, number protowire.Number, value uint64) []byte {
	if number < 0x10 && value < 0x80 {
		return append(b, byte(number<<3), byte(value)) // mostly both varints are a byte
	}
	return protowire.AppendVarint(protowire.AppendTag(b, number, protowire.VarintType), value)
}

// appendDesc appends the ipc_desc_entry of a queue.
func appendDesc(b []byte, q *Queue) []byte {
	b = appendField(b, descKey, uint64(q.Key))
	b = appendField(b, descUID, uint64(q.UID))
	b = appendField(b, descGID, uint64(q.GID))
	b = appendField(b, descCUID, uint64(q.CUID))
	b = appendField(b, descCGID, uint64(q.CGID))
	b = appendField(b, descMode, uint64(q.Mode))
	return appendField(b, descID, uint64(q.ID))
}

// appendEntry appends the ipc_msg_entry of a queue.
func appendEntry(b []byte, q *Queue) []byte {
	var scratch [7 * 6]byte
	desc := appendDesc(scratch[:0], q)
	b = protowire.AppendTag(b, entryDesc, protowire.BytesType)
	b = protowire.AppendBytes(b, desc)
	b = appendField(b, entryQBytes, uint64(q.QBytes))
	return appendField(b, entryQNum, uint64(q.QNum))
}

// appendMessage appends the ipc_msg of a message.
func appendMessage(b []byte, m Message) []byte {
	b = appendField(b, msgType, uint64(m.Type))
	return appendField(b, msgSize, uint64(m.Size))
}
