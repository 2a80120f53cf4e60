package images

import (
	"encoding/binary"
	"fmt"
	"io"
	"math"

	"google.golang.org/protobuf/encoding/protowire"
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

// varField is where a field of ipc_var_entry is kept: one of the pointers is set.
type varField struct {
	repeated *[]uint32
	u32      *uint32
	u64      *uint64
	optional **uint32
}

// fields returns the fields by their number in CRIU's images/ipc-var.proto, less
// one. They are encoded by hand: the generated code takes longer to start than a
// small checkpoint has. A test holds it against go-criu's generated types.
func (v *Vars) fields() []varField {
	return []varField{
		{repeated: &v.Sem}, {u32: &v.MsgMax}, {u32: &v.MsgMnb}, {u32: &v.MsgMni}, {u32: &v.AutoMsgMni},
		{u64: &v.ShmMax}, {u64: &v.ShmAll}, {u32: &v.ShmMni}, {u32: &v.ShmRmidForced},
		{u32: &v.MqQueuesMax}, {u32: &v.MqMsgMax}, {u32: &v.MqMsgsizeMax},
		{optional: &v.MqMsgDefault}, {optional: &v.MqMsgsizeDefault},
		{optional: &v.MsgNextID}, {optional: &v.SemNextID}, {optional: &v.ShmNextID},
	}
}

// values returns what is to be written of a field.
func (f *varField) values() []uint64 {
	switch {
	case f.repeated != nil:
		values := make([]uint64, len(*f.repeated))
		for i, value := range *f.repeated {
			values[i] = uint64(value)
		}
		return values
	case f.u32 != nil:
		return []uint64{uint64(*f.u32)}
	case f.u64 != nil:
		return []uint64{*f.u64}
	case *f.optional != nil:
		return []uint64{uint64(**f.optional)}
	}
	return nil
}

// set takes a value that was read.
func (f *varField) set(value uint64) error {
	if f.u64 != nil {
		*f.u64 = value
		return nil
	}
	if value > math.MaxUint32 {
		return fmt.Errorf("%d does not fit 32 bits", value)
	}
	short := uint32(value)
	switch {
	case f.repeated != nil:
		*f.repeated = append(*f.repeated, short)
	case f.u32 != nil:
		*f.u32 = short
	default:
		*f.optional = &short
	}
	return nil
}

func (f *varField) required() bool { return f.u32 != nil || f.u64 != nil }

// WriteVars writes an ipcns-var image.
func WriteVars(w io.Writer, v *Vars) error {
	head := header(VarKind)
	buf := append(head[:], 0, 0, 0, 0)
	for i, f := range v.fields() {
		for _, value := range f.values() {
			buf = appendField(buf, protowire.Number(i+1), value)
		}
	}
	binary.LittleEndian.PutUint32(buf[headerLen:], uint32(len(buf)-headerLen-4))
	_, err := w.Write(buf)
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
	v := &Vars{}
	if err := parseVars(body[4:], v); err != nil {
		return nil, fault(file, headerLen, "sysctl record: %v", err)
	}
	return v, nil
}

func parseVars(b []byte, v *Vars) error {
	known := v.fields()
	seen := make([]bool, len(known))
	take := func(number protowire.Number, value uint64) error {
		if int(number) > len(known) {
			return nil
		}
		seen[number-1] = true
		if err := known[number-1].set(value); err != nil {
			return fmt.Errorf("field %d: %w", number, err)
		}
		return nil
	}
	if err := fields(b, take, func(number protowire.Number, value []byte) error { return packed(number, value, take) }); err != nil {
		return err
	}
	for i := range known {
		if known[i].required() && !seen[i] {
			return fmt.Errorf("field %d is missing", i+1)
		}
	}
	return nil
}

// packed reads the numbers of the repeated field where a writer packed them, as
// every reader of protobuf has to. Other fields are none that we know.
func packed(number protowire.Number, b []byte, take func(protowire.Number, uint64) error) error {
	const sem = 1
	for number == sem && len(b) > 0 {
		value, n := protowire.ConsumeVarint(b)
		if n < 0 {
			return protowire.ParseError(n)
		}
		if err := take(number, value); err != nil {
			return err
		}
		b = b[n:]
	}
	return nil
}
