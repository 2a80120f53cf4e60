package images

import (
	"encoding/binary"
	"fmt"
	"io"

	ipcvar "github.com/checkpoint-restore/go-criu/v7/crit/images/ipc-var"
	"google.golang.org/protobuf/proto"
)

// Vars is the record of an ipcns-var image: the sysctls of an IPC namespace, as
// CRIU's ipc_var_entry holds them. Pointers are nil where the image has no such
// field: a next id is only there when one was set.
type Vars struct {
	Sem              []uint32 `json:"sem"` // kernel.sem: four numbers
	MsgMax           uint32   `json:"msgmax"`
	MsgMnb           uint32   `json:"msgmnb"`
	MsgMni           uint32   `json:"msgmni"`
	AutoMsgMni       uint32   `json:"auto_msgmni"`
	ShmMax           uint64   `json:"shmmax"`
	ShmAll           uint64   `json:"shmall"`
	ShmMni           uint32   `json:"shmmni"`
	ShmRmidForced    uint32   `json:"shm_rmid_forced"`
	MqQueuesMax      uint32   `json:"mq_queues_max"`
	MqMsgMax         uint32   `json:"mq_msg_max"`
	MqMsgsizeMax     uint32   `json:"mq_msgsize_max"`
	MqMsgDefault     *uint32  `json:"mq_msg_default,omitempty"`
	MqMsgsizeDefault *uint32  `json:"mq_msgsize_default,omitempty"`
	MsgNextID        *uint32  `json:"msg_next_id,omitempty"`
	SemNextID        *uint32  `json:"sem_next_id,omitempty"`
	ShmNextID        *uint32  `json:"shm_next_id,omitempty"`
}

// maxVars bounds the length of an ipcns-var image: CRIU's are below 200 bytes.
const maxVars = 64 << 10

// WriteVars writes an ipcns-var image.
func WriteVars(w io.Writer, v *Vars) error {
	head := header(VarKind)
	buf := append(head[:], 0, 0, 0, 0)
	buf, err := proto.MarshalOptions{Deterministic: true}.MarshalAppend(buf, v.entry())
	if err != nil {
		return fmt.Errorf("encode the %s image: %w", VarKind, err)
	}
	binary.LittleEndian.PutUint32(buf[headerLen:], uint32(len(buf)-headerLen-4))
	_, err = w.Write(buf)
	return err
}

// ReadVars reads an ipcns-var image; file is the name that errors give.
func ReadVars(file string, r io.Reader) (*Vars, error) {
	buf, err := io.ReadAll(io.LimitReader(r, maxVars+1))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", file, err)
	}
	if err := checkHeader(file, buf[:min(len(buf), headerLen)], VarKind); err != nil {
		return nil, err
	}
	body := buf[headerLen:]
	if len(body) < 4 {
		return nil, fault(file, headerLen, "truncated in the length of the record")
	}
	length := binary.LittleEndian.Uint32(body)
	if int64(length) != int64(len(body)-4) {
		return nil, fault(file, headerLen, "a record of %d bytes in the remaining %d", length, len(body)-4)
	}
	var entry ipcvar.IpcVarEntry
	if err := proto.Unmarshal(body[4:], &entry); err != nil {
		return nil, fault(file, headerLen, "sysctl record: %v", err)
	}
	return varsOf(&entry), nil
}

func (v *Vars) entry() *ipcvar.IpcVarEntry {
	return &ipcvar.IpcVarEntry{
		SemCtls: v.Sem, MsgCtlmax: &v.MsgMax, MsgCtlmnb: &v.MsgMnb, MsgCtlmni: &v.MsgMni,
		AutoMsgmni: &v.AutoMsgMni, ShmCtlmax: &v.ShmMax, ShmCtlall: &v.ShmAll,
		ShmCtlmni: &v.ShmMni, ShmRmidForced: &v.ShmRmidForced,
		MqQueuesMax: &v.MqQueuesMax, MqMsgMax: &v.MqMsgMax, MqMsgsizeMax: &v.MqMsgsizeMax,
		MqMsgDefault: v.MqMsgDefault, MqMsgsizeDefault: v.MqMsgsizeDefault,
		MsgNextId: v.MsgNextID, SemNextId: v.SemNextID, ShmNextId: v.ShmNextID,
	}
}

func varsOf(e *ipcvar.IpcVarEntry) *Vars {
	return &Vars{
		Sem: e.SemCtls, MsgMax: e.GetMsgCtlmax(), MsgMnb: e.GetMsgCtlmnb(), MsgMni: e.GetMsgCtlmni(),
		AutoMsgMni: e.GetAutoMsgmni(), ShmMax: e.GetShmCtlmax(), ShmAll: e.GetShmCtlall(),
		ShmMni: e.GetShmCtlmni(), ShmRmidForced: e.GetShmRmidForced(),
		MqQueuesMax: e.GetMqQueuesMax(), MqMsgMax: e.GetMqMsgMax(), MqMsgsizeMax: e.GetMqMsgsizeMax(),
		MqMsgDefault: e.MqMsgDefault, MqMsgsizeDefault: e.MqMsgsizeDefault,
		MsgNextID: e.MsgNextId, SemNextID: e.SemNextId, ShmNextID: e.ShmNextId,
	}
}
