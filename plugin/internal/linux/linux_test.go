package linux

import (
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ipc-cr/ipc-cr/nsenter"
	"github.com/ipc-cr/ipc-cr/nsenter/nstest"
	"github.com/ipc-cr/ipc-cr/plugin/internal/kernel"
	"github.com/ipc-cr/ipc-cr/plugin/internal/kerneltest"
)

func TestMain(m *testing.M) { nstest.Main(m) }

func fresh(t testing.TB) kernel.Space { return NewSpace(nstest.Fresh(t), nil) }

func TestContract(t *testing.T) {
	kerneltest.Run(t, func(t testing.TB) kernel.Space { return withoutResource{t, fresh(t)} })
}

// withoutResource takes CAP_SYS_RESOURCE from each thread in a namespace.
type withoutResource struct {
	t testing.TB
	kernel.Space
}

func (w withoutResource) Run(fn func(kernel.Kernel) error) error {
	return w.Space.Run(func(k kernel.Kernel) error {
		drop(w.t, unix.CAP_SYS_RESOURCE)
		return fn(k)
	})
}

// The namespace of a child user namespace, whose sysctls only its own root may
// write.
func TestContractOfAChildUserNamespace(t *testing.T) {
	nstest.Require(t, "root")
	kerneltest.Run(t, func(t testing.TB) kernel.Space { return withoutResource{t, child(t)} })
}

func child(t testing.TB) *Space {
	t.Helper()
	ns, err := nsenter.OpenPID(nstest.InUserNS(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ns.Close() })
	owner, err := ns.Owner()
	if err != nil {
		t.Fatal(err)
	}
	return NewSpace(ns, owner)
}
