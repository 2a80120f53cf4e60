// Package kerneltest is the contract of package kernel as a test suite: what the
// kinds rely on. The real kernel and the in-memory one must both pass it.
//
// It is for tests only.
package kerneltest

import (
	"bytes"
	"encoding/binary"
	"errors"
	"os"
	"testing"

	"github.com/ipc-cr/ipc-cr/plugin/internal/kernel"
)

// The sysctls that bound message queues.
const (
	msgmax = "kernel.msgmax"
	msgmnb = "kernel.msgmnb"
	msgmni = "kernel.msgmni"
)

// bench is one namespace for one test, seen from a thread inside.
type bench struct {
	*testing.T
	space kernel.Space
	k     kernel.Kernel
	self  kernel.Creator
}

// contract is all of the suite, by the call in question.
var contract = []struct {
	name string
	test func(*bench)
}{
	{"ids are natural", naturalIDs},
	{"ids go on after a removal", idsGoOn},
	{"next id", nextID},
	{"next id is used up", nextIDOnce},
	{"next id does not move the natural ones", nextIDBeside},
	{"next id of a taken slot", nextIDTaken},
	{"next id is not used up by EEXIST", nextIDKept},
	{"key exists", keyExists},
	{"private keys", privateKeys},
	{"no space", noSpace},
	{"a new queue", newQueue},
	{"creator", creator},
	{"creator is nobody", creatorNobody},
	{"may restore", mayRestore},

	{"send is limited by msgmax", sendMsgmax},
	{"send is limited by bytes", sendBytes},
	{"send is limited by messages", sendCount},
	{"send without payload", sendEmpty},
	{"send of a bad type", sendType},
	{"send is seen", sendStat},
	{"copy in order", copyOrder},
	{"copy changes nothing", copyChangesNothing},
	{"copy into too little", copyTooBig},
	{"copy past the end", copyPastEnd},
	{"copy above msgmax", copyMsgmax},

	{"set", set},
	{"set above msgmnb", setAboveMsgmnb},
	{"set under a raised msgmnb", setRaised},
	{"set below the content", setBelowContent},
	{"removed", removed},
	{"table", table},
	{"stat by index", statIndex},
	{"sysctl", sysctl},
	{"sysctl that is not there", sysctlMissing},
	{"sysctl out of range", sysctlRange},
	{"sysctl of several numbers", sysctlSeveral},
	{"no other kinds", noOtherKinds},
	{"threads", threads},
}

// Run runs the suite. fresh makes an empty namespace with the limits of a fresh
// one, which nobody else uses, and whose threads have every capability but
// CAP_SYS_RESOURCE over the initial user namespace: nothing may rely on that one,
// which the root of a user namespace never has.
func Run(t *testing.T, fresh func(testing.TB) kernel.Space) {
	t.Helper()
	for _, c := range contract {
		t.Run(c.name, func(t *testing.T) {
			space := fresh(t)
			err := space.Run(func(k kernel.Kernel) error {
				c.test(&bench{T: t, space: space, k: k, self: self()})
				return nil
			})
			if err != nil {
				t.Fatal(err)
			}
		})
	}
}

func self() kernel.Creator {
	return kernel.Creator{UID: uint32(os.Geteuid()), GID: uint32(os.Getegid())}
}

// Msgbuf makes a message as Send takes it.
func Msgbuf(mtype int64, payload []byte) []byte {
	return append(binary.NativeEndian.AppendUint64(nil, uint64(mtype)), payload...)
}

// Pattern makes a payload that no other seed and no other size gives.
func Pattern(size int, seed int) []byte {
	b := make([]byte, size)
	x := uint32(seed)*2654435761 + uint32(size)
	for i := range b {
		x = x*1664525 + 1013904223
		b[i] = byte(x >> 24)
	}
	return b
}

func (b *bench) create(key int32) int32 {
	b.Helper()
	id, err := b.k.Create(key, 0o600, b.self)
	if err != nil {
		b.Fatalf("create: %v", err)
	}
	return id
}

func (b *bench) nextID(id int32) {
	b.Helper()
	if err := b.k.SetNextID(id); err != nil {
		b.Fatalf("set next id %d: %v", id, err)
	}
}

func (b *bench) send(id int32, mtype int64, payload []byte) {
	b.Helper()
	if err := b.k.Send(id, Msgbuf(mtype, payload)); err != nil {
		b.Fatalf("send %d bytes to queue %d: %v", len(payload), id, err)
	}
}

func (b *bench) remove(id int32) {
	b.Helper()
	if err := b.k.Remove(id); err != nil {
		b.Fatalf("remove queue %d: %v", id, err)
	}
}

func (b *bench) stat(id int32) kernel.Queue {
	b.Helper()
	q, err := b.k.Stat(id)
	if err != nil {
		b.Fatalf("stat queue %d: %v", id, err)
	}
	return q
}

func (b *bench) setSysctl(name string, value int64) {
	b.Helper()
	if err := b.k.SetSysctl(name, value); err != nil {
		b.Fatal(err)
	}
}

func (b *bench) wantSysctl(name string, value int64) {
	b.Helper()
	got, err := b.k.Sysctl(name)
	if err != nil || len(got) != 1 || got[0] != value {
		b.Errorf("%s is %d, %v, want %d", name, got, err, value)
	}
}

func (b *bench) wantErr(what string, err error, errno ...error) {
	b.Helper()
	for _, want := range errno {
		if errors.Is(err, want) {
			return
		}
	}
	b.Errorf("%s: error %v, want %v", what, err, errno)
}

// wantMessage copies a message and compares type, length and bytes.
func (b *bench) wantMessage(id int32, index int, mtype int64, payload []byte) {
	b.Helper()
	buf := make([]byte, kernel.HeaderLen+len(payload))
	n, err := b.k.Copy(id, buf, index)
	if err != nil || n != len(payload) || !bytes.Equal(buf, Msgbuf(mtype, payload)) {
		b.Errorf("copy message %d of queue %d: %d bytes %.40x, %v, want %d bytes %.40x",
			index, id, n, buf, err, len(payload), Msgbuf(mtype, payload))
	}
}
