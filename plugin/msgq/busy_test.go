package msgq

import (
	"testing"

	"github.com/ipc-cr/ipc-cr/plugin/internal/kernel"
)

func TestBusy(t *testing.T) {
	for _, c := range []struct {
		q    kernel.Queue
		busy bool
	}{
		{kernel.Queue{}, false},
		{kernel.Queue{STime: 99, RTime: 99, CTime: 99}, false},
		{kernel.Queue{STime: 103, RTime: 103, CTime: 103}, false},
		{kernel.Queue{STime: 100}, true}, {kernel.Queue{STime: 102}, true},
		{kernel.Queue{RTime: 100}, true}, {kernel.Queue{RTime: 102}, true},
		{kernel.Queue{CTime: 100}, true}, {kernel.Queue{CTime: 102}, true}, {kernel.Queue{CTime: 101, STime: 5}, true},
	} {
		c.q.ID, c.q.Key = 7, 7
		s := &survey{queues: []kernel.Queue{{ID: 1, STime: 1}, c.q}}
		if got, want := s.Busy(100, 102, nil), map[bool]string{true: "queue 7 (key 0x7)"}[c.busy]; got != want {
			t.Errorf("%+v: %q, want %q", c.q, got, want)
		}
	}
}

// What a process did that has been stopped was before the copy.
func TestBusyByHeld(t *testing.T) {
	held := func(pid int) bool { return pid == 5 }
	for _, c := range []struct {
		q    kernel.Queue
		busy bool
	}{
		{kernel.Queue{STime: 100, LSPID: 5}, false},
		{kernel.Queue{STime: 100, LSPID: 6}, true},
		{kernel.Queue{STime: 100, LSPID: 5, RTime: 100, LRPID: 6}, true},
		{kernel.Queue{STime: 100, LSPID: 6, RTime: 100, LRPID: 5}, true},
		{kernel.Queue{STime: 99, LSPID: 6, RTime: 100, LRPID: 5}, false},
		{kernel.Queue{RTime: 100}, true}, // of a pid namespace that is not ours
		{kernel.Queue{CTime: 100}, false},
	} {
		s := &survey{queues: []kernel.Queue{c.q}}
		if got := s.Busy(100, 102, held); (got != "") != c.busy {
			t.Errorf("%+v: busy %q, want %t", c.q, got, c.busy)
		}
	}
}
