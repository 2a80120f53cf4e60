package linux

import (
	"testing"

	"github.com/ipc-cr/ipc-cr/nsenter"
	"github.com/ipc-cr/ipc-cr/nsenter/nstest"
	"github.com/ipc-cr/ipc-cr/plugin/internal/kernel"
	"github.com/ipc-cr/ipc-cr/plugin/internal/kerneltest"
)

func TestMain(m *testing.M) { nstest.Main(m) }

func fresh(t testing.TB) kernel.Space { return NewSpace(nstest.Fresh(t), nil) }

func TestContract(t *testing.T) { kerneltest.Run(t, fresh) }

// The namespace of a child user namespace, whose sysctls only its own root may
// write.
func TestContractOfAChildUserNamespace(t *testing.T) {
	nstest.Require(t, "root")
	kerneltest.Run(t, func(t testing.TB) kernel.Space { return child(t) })
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
