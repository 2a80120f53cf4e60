package memkernel

import (
	"errors"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ipc-cr/ipc-cr/plugin/internal/kernel"
	"github.com/ipc-cr/ipc-cr/plugin/internal/kerneltest"
)

func TestContract(t *testing.T) {
	kerneltest.Run(t, func(testing.TB) kernel.Space { return New() })
}

func TestFailIsAskedBeforeEachCall(t *testing.T) {
	s := New()
	var asked []string
	s.Fail = func(call string, n int) error {
		if n != len(asked)+1 {
			t.Errorf("%s is number %d, want %d", call, n, len(asked)+1)
		}
		asked = append(asked, call)
		if call == "Create" {
			return unix.ENOMEM
		}
		return nil
	}
	err := s.Run(func(k kernel.Kernel) error {
		if _, err := k.Table(); err != nil {
			return err
		}
		_, err := k.Create(0, 0, kernel.Creator{})
		return err
	})
	if !errors.Is(err, unix.ENOMEM) || len(s.queues) != 0 || s.Calls() != 2 {
		t.Errorf("%v with %d queues after %d calls: want ENOMEM, 0, 2", err, len(s.queues), s.Calls())
	}
}

// A neighbour that comes in between takes the id.
func TestFailMayActOnTheNamespace(t *testing.T) {
	s := New()
	s.Fail = func(call string, _ int) error {
		if call == "Create" {
			_, err := s.Task(2).Create(0, 0o600, kernel.Creator{})
			return err
		}
		return nil
	}
	var id int32
	err := s.Run(func(k kernel.Kernel) (err error) {
		if err := k.SetNextID(4242); err != nil {
			return err
		}
		id, err = k.Create(0, 0o600, kernel.Creator{})
		return err
	})
	if err != nil || id == 4242 || s.queues[4242] == nil || s.Calls() != 2 {
		t.Errorf("id %d, %v, %d calls: want another id than 4242, and 2", id, err, s.Calls())
	}
}

func TestReceive(t *testing.T) {
	s := New()
	neighbour := s.Task(77)
	id, err := neighbour.Create(1, 0o600, kernel.Creator{})
	if err != nil {
		t.Fatal(err)
	}
	for _, payload := range []string{"first", "second"} {
		if err := neighbour.Send(id, kerneltest.Msgbuf(3, []byte(payload))); err != nil {
			t.Fatal(err)
		}
	}
	m, err := neighbour.Receive(id)
	q := s.queues[int(id)]
	if err != nil || string(m[kernel.HeaderLen:]) != "first" || q.QNum != 1 || q.CBytes != 6 || q.LRPID != 77 || q.RTime == 0 {
		t.Errorf("%q, %v, %+v", m, err, q.Queue)
	}
}

func TestHave(t *testing.T) {
	s := New()
	s.Have("kernel.sem")
	s.Have("kernel.msgmax", 1<<40)
	if _, err := s.Task(2).Sysctl("kernel.sem"); !errors.Is(err, unix.ENOENT) {
		t.Errorf("%v, want ENOENT", err)
	}
	if v, err := s.Task(2).Sysctl("kernel.msgmax"); err != nil || v[0] != 1<<40 {
		t.Errorf("%v, %v", v, err)
	}
}
