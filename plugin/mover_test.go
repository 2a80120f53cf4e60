package plugin_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"strconv"
	"sync/atomic"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/ipc-cr/ipc-cr/nsenter"
	"github.com/ipc-cr/ipc-cr/nsenter/nstest"
)

// Programs that keep queues busy until they are killed.
var (
	tokenProgram  = nstest.Program("plugin.token", bounceToken)
	streamProgram = nstest.Program("plugin.stream", runStream)
)

// The queues of the programs.
const (
	tokenHere, tokenThere = 10, 11
	streamFirst           = 20
	streamHops            = 3 // queues from the producer to the consumer
	streamBacklog         = 300
)

// receive is msgrcv(2) of any message; send is msgsnd(2). Both wait.
func receive(id int, buf []byte) int {
	for {
		n, _, errno := unix.Syscall6(unix.SYS_MSGRCV, uintptr(id), uintptr(unsafe.Pointer(unsafe.SliceData(buf))), uintptr(len(buf)-8), 0, 0, 0)
		if errno == 0 {
			return int(n)
		}
		mustBe(errno, unix.EINTR)
	}
}

func send(id int, buf []byte) {
	for {
		_, _, errno := unix.Syscall6(unix.SYS_MSGSND, uintptr(id), uintptr(unsafe.Pointer(unsafe.SliceData(buf))), uintptr(len(buf)-8), 0, 0, 0)
		if errno == 0 {
			return
		}
		mustBe(errno, unix.EINTR)
	}
}

func mustBe(err, want error) {
	if !errors.Is(err, want) {
		panic(err)
	}
}

// pace is how fast the threads of a program move messages.
type pace struct {
	pause time.Duration
	quiet atomic.Bool
}

// newPace understands a duration between two moves, 0 for none; "bursts": flat
// out for a moment, then silence for more than a second; and "edges": flat out
// for a moment around the beginning of each second, which is where the times
// of the kernel change.
func newPace(text string) *pace {
	p := &pace{}
	switch text {
	case "bursts":
		go p.bursts()
		return p
	case "edges":
		go p.edges()
		return p
	}
	var err error
	p.pause, err = time.ParseDuration(text)
	mustBe(err, nil)
	return p
}

func (p *pace) bursts() {
	for {
		time.Sleep(50*time.Millisecond + rand.N(100*time.Millisecond))
		p.quiet.Store(true)
		time.Sleep(1100*time.Millisecond + rand.N(time.Second))
		p.quiet.Store(false)
	}
}

func (p *pace) edges() {
	const width = 20 * time.Millisecond
	for {
		p.quiet.Store(true)
		edge := time.Now().Truncate(time.Second).Add(2 * time.Second)
		time.Sleep(time.Until(edge.Add(rand.N(2*width) - width)))
		p.quiet.Store(false)
		time.Sleep(rand.N(width))
	}
}

func (p *pace) wait() {
	for p.quiet.Load() {
		time.Sleep(time.Millisecond)
	}
	if p.pause > 0 {
		time.Sleep(p.pause)
	}
}

// bounceToken PACE moves one message from one queue to the other and back, so
// that it is never in both.
func bounceToken(args []string) {
	p, buf := newPace(args[0]), make([]byte, 16)
	fmt.Println("moving")
	for from, to := tokenHere, tokenThere; ; from, to = to, from {
		p.wait()
		n := receive(from, buf)
		send(to, buf[:8+n])
	}
}

// runStream PACE sends numbers through several queues, one thread from each to
// the next.
func runStream(args []string) {
	runtime.LockOSThread()
	p := newPace(args[0])
	for hop := range streamHops - 1 {
		go relay(p, streamFirst+hop, streamFirst+hop+1)
	}
	go consume(p, streamFirst+streamHops-1)
	fmt.Println("moving")
	for number := uint64(streamHops * streamBacklog); ; number++ {
		p.wait()
		send(streamFirst, numbered(number))
	}
}

func relay(p *pace, from, to int) {
	runtime.LockOSThread()
	for buf := make([]byte, 16); ; {
		p.wait()
		n := receive(from, buf)
		send(to, buf[:8+n])
	}
}

func consume(p *pace, from int) {
	runtime.LockOSThread()
	for buf := make([]byte, 16); ; {
		p.wait()
		receive(from, buf)
	}
}

func numbered(number uint64) []byte {
	return binary.BigEndian.AppendUint64(msgbuf(message{Type: 1}), number)
}

// startMovers fills a namespace and starts both programs in it.
func startMovers(t testing.TB, ns *nsenter.Namespace, pace string) {
	t.Helper()
	queues := []queue{aQueue(tokenHere, 0x10, "token"), aQueue(tokenThere, 0x11)}
	number := uint64(0)
	for hop := streamHops - 1; hop >= 0; hop-- {
		q := aQueue(int32(streamFirst+hop), int32(0x20+hop))
		for range streamBacklog {
			q.Messages = append(q.Messages, message{1, string(numbered(number)[8:])})
			number++
		}
		q.QBytes = 2 * 8 * streamBacklog
		queues = append(queues, q)
	}
	fill(t, ns, queues...)
	for _, program := range []string{tokenProgram, streamProgram} {
		p := nstest.Start(t, ns, program, pace)
		if _, err := p.Stdout.ReadString('\n'); err != nil {
			t.Fatal(err)
		}
	}
}

// checkMoved tells what is wrong with a copy of what startMovers started: "" if
// the namespace can really have been so.
func checkMoved(queues []queue) string {
	byID := map[int32]queue{}
	for _, q := range queues {
		byID[q.ID] = q
	}
	if tokens := len(byID[tokenHere].Messages) + len(byID[tokenThere].Messages); tokens > 1 {
		return strconv.Itoa(tokens) + " tokens"
	}
	return checkStream(byID)
}

// checkStream goes from the consumer's queue to the producer's: each relay may
// hold one message in its hands.
func checkStream(byID map[int32]queue) string {
	known, next, hands := false, uint64(0), uint64(0)
	for hop := streamHops - 1; hop >= 0; hop-- {
		for i, m := range byID[int32(streamFirst+hop)].Messages {
			number := binary.BigEndian.Uint64([]byte(m.Text))
			if known && (number < next || number > next+hands) {
				return fmt.Sprintf("hop %d, message %d is number %d, after number %d with %d in hands", hop, i, number, next-1, hands)
			}
			known, next, hands = true, number+1, 0
		}
		hands++
	}
	return ""
}
