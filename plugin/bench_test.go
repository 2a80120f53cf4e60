package plugin_test

import (
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ipc-cr/ipc-cr/images"
	"github.com/ipc-cr/ipc-cr/nsenter"
	"github.com/ipc-cr/ipc-cr/nsenter/nstest"
	"github.com/ipc-cr/ipc-cr/plugin"
	"github.com/ipc-cr/ipc-cr/plugin/internal/kernel"
	"github.com/ipc-cr/ipc-cr/plugin/internal/linux"
	"github.com/ipc-cr/ipc-cr/plugin/ipcvar"
	"github.com/ipc-cr/ipc-cr/plugin/msgq"
)

var kinds = []plugin.Kind{msgq.Kind{}, ipcvar.Kind{}}

func TestMain(m *testing.M) { nstest.Main(m) }

// shapes are namespaces to measure: queues, messages in each, bytes in each.
var shapes = []struct {
	name                   string
	queues, messages, size int
}{
	{"10x64B", 1, 10, 64},
	{"1000x64B", 1, 1000, 64},
	{"64x64KiB", 1, 64, 64 << 10},
	{"1000queues", 1000, 16, 256},
	{"32000queues", 32000, 1, 64},
}

func BenchmarkCheckpoint(b *testing.B) {
	for _, s := range shapes {
		b.Run(s.name, func(b *testing.B) {
			ns := filled(b, s.queues, s.messages, s.size)
			dir := b.TempDir()
			checkpoint(b, ns, dir)
			for b.Loop() {
				checkpoint(b, ns, dir)
			}
		})
	}
}

func BenchmarkRestore(b *testing.B) {
	for _, s := range shapes {
		b.Run(s.name, func(b *testing.B) {
			ns := filled(b, s.queues, s.messages, s.size)
			dir := b.TempDir()
			checkpoint(b, ns, dir)
			for b.Loop() {
				b.StopTimer()
				fresh, err := nsenter.New()
				if err != nil {
					b.Fatal(err)
				}
				b.StartTimer()
				_, err = plugin.Restore(b.Context(), plugin.RestoreOptions{
					Kinds: kinds, Namespace: fresh, Fresh: true, Dir: dir, Number: images.Auto,
				})
				b.StopTimer()
				if err != nil {
					b.Fatal(err)
				}
				fresh.Close()
				b.StartTimer()
			}
		})
	}
}

func checkpoint(b *testing.B, ns *nsenter.Namespace, dir string) {
	b.Helper()
	_, err := plugin.Checkpoint(b.Context(), plugin.CheckpointOptions{Kinds: kinds, Namespace: ns, Dir: dir, Number: 1, Force: true})
	if err != nil {
		b.Fatal(err)
	}
}

// filled makes a namespace with queues.
func filled(b *testing.B, queues, messages, size int) *nsenter.Namespace {
	b.Helper()
	ns := nstest.Fresh(b)
	err := linux.NewSpace(ns, nil).Run(func(k kernel.Kernel) error {
		for name, value := range map[string]int64{"kernel.msgmax": 1 << 20, "kernel.msgmnb": 1 << 30, "kernel.msgmni": 32768} {
			if err := k.SetSysctl(name, value); err != nil {
				return err
			}
		}
		message := make([]byte, kernel.HeaderLen+size)
		message[0], message[kernel.HeaderLen-1] = 1, 1
		for q := range queues {
			id, err := k.Create(int32(q+1), 0o600, kernel.Creator{UID: uint32(unix.Geteuid()), GID: uint32(unix.Getegid())})
			if err != nil {
				return err
			}
			for range messages {
				if err := k.Send(id, message); err != nil {
					return err
				}
			}
		}
		return nil
	})
	if err != nil {
		b.Fatal(err)
	}
	return ns
}
