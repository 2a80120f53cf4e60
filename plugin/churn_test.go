package plugin_test

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"os"
	"runtime"
	"strconv"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/ipc-cr/ipc-cr/nsenter/nstest"
	"github.com/ipc-cr/ipc-cr/plugin"
	"github.com/ipc-cr/ipc-cr/plugin/internal/kind"
)

// churnEnv says for how long queues are made, used and removed beside walks.
const churnEnv = "IPC_CR_CHURN"

var churnProgram = nstest.Program("plugin.churn", churn)

// churn makes, fills, empties and removes queues on several threads, and rests
// now and then, so that a copy is accepted. What is in a message follows from its
// type: foreign bytes are found out.
func churn([]string) {
	for i := range 3 {
		go func() {
			runtime.LockOSThread()
			for {
				if time.Now().UnixMilli()%2000 < 700 {
					churnOne(uintptr(0x900 + i*100 + rand.N(100)))
				} else {
					time.Sleep(5 * time.Millisecond)
				}
			}
		}()
	}
	fmt.Println("churning")
	select {}
}

func churnOne(key uintptr) {
	id, _, errno := unix.Syscall(unix.SYS_MSGGET, key, unix.IPC_CREAT|0o600, 0)
	mustBe(errnoOrNil(errno), nil)
	for range rand.N(40) {
		m := churned(rand.Int64N(1<<40) + 1)
		unix.Syscall6(unix.SYS_MSGSND, id, uintptr(unsafe.Pointer(unsafe.SliceData(m))), uintptr(len(m)-8), unix.IPC_NOWAIT, 0, 0)
	}
	buf := make([]byte, 1<<14)
	for range rand.N(40) {
		unix.Syscall6(unix.SYS_MSGRCV, id, uintptr(unsafe.Pointer(unsafe.SliceData(buf))), uintptr(len(buf)-8), 0, unix.IPC_NOWAIT, 0)
	}
	if rand.N(3) == 0 {
		unix.Syscall(unix.SYS_MSGCTL, id, unix.IPC_RMID, 0)
	}
}

// churned is the message of a type: of up to two segments.
func churned(mtype int64) []byte {
	m := make([]byte, 8+mtype%6000)
	binary.NativeEndian.PutUint64(m, uint64(mtype))
	for i := range m[8:] {
		m[8+i] = byte(mtype>>8) + byte(i)
	}
	return m
}

// Queues that come and go while they are walked along: every copy that is accepted
// holds what was sent, and nothing else.
func TestWalksAmongChurn(t *testing.T) {
	nstest.Require(t, "root", "bpf")
	length := 30 * time.Second
	if text, ok := os.LookupEnv(churnEnv); ok {
		var err error
		if length, err = time.ParseDuration(text); err != nil {
			t.Fatal(err)
		}
	}
	ns, dir := nstest.Fresh(t), t.TempDir()
	if _, err := nstest.Start(t, ns, churnProgram).Stdout.ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	accepted, refused, thrown, messages := 0, 0, 0, 0
	enough := func() bool { return accepted > thrown && messages > 0 }
	began := time.Now()
	for time.Since(began) < length || !enough() && time.Since(began) < length+2*time.Minute {
		report, err := plugin.Checkpoint(t.Context(), plugin.CheckpointOptions{
			Kinds: kinds, Namespace: ns, Dir: dir, Number: 1, Force: true, Method: plugin.MethodBPF,
		})
		if err != nil {
			refused++
			wantFailure(t, err, "queue", kind.ErrChanged.Error())
			continue
		}
		accepted++
		if report.Method != plugin.MethodBPF {
			thrown++
		}
		messages += wantChurned(t, dir)
	}
	t.Logf("%d accepted with %d messages, %d of them without a walk; %d refused", accepted, messages, thrown, refused)
	if !enough() {
		t.Error("inconclusive: no walk was accepted that gave a message")
	}
}

func wantChurned(t *testing.T, dir string) (messages int) {
	t.Helper()
	for _, q := range readImage(t, dir) {
		for i, m := range q.Messages {
			if want := churned(m.Type); m.Text != string(want[8:]) {
				t.Errorf("queue %d, message %d of type %s holds something else", q.ID, i, strconv.FormatInt(m.Type, 10))
			}
			messages++
		}
	}
	return messages
}
