package nsenter

import (
	"fmt"
	"runtime"
	"runtime/debug"
	"time"

	"golang.org/x/sys/unix"
)

// Panic is the value with which a panic inside [Namespace.Run] goes on in the
// goroutine that called Run. It prints the original value and the stack of the
// goroutine it comes from.
type Panic struct {
	Value any    // what panic was called with
	Stack []byte // as debug.Stack gives it
}

// Error returns the original value and the stack.
func (p *Panic) Error() string { return fmt.Sprintf("%v\n\n%s", p.Value, p.Stack) }

// Unwrap returns the original value if it is an error, else nil.
func (p *Panic) Unwrap() error {
	err, _ := p.Value.(error)
	return err
}

// outcome is how a function ended: with err, with a panic, or by Goexit.
type outcome struct {
	err      error
	panicked *Panic
	exited   bool
	tid      int // the thread it ran on
}

// onThread runs fn on an OS thread that ends with it, so that whatever fn
// changes about its thread cannot leak into the rest of the program. Panics
// and Goexit are carried back to the caller.
func onThread(fn func() error) error {
	done := make(chan outcome, 1)
	go runOnThread(fn, done)
	return finish(<-done)
}

// finish ends a thread's work in the goroutine that waited for it.
func finish(o outcome) error {
	awaitEnd(o.tid)
	if o.panicked != nil {
		panic(o.panicked)
	}
	if o.exited {
		runtime.Goexit()
	}
	return o.err
}

// runOnThread never unlocks the thread it changes: the runtime then ends it.
// The process's first thread cannot be ended, the runtime parks it forever,
// and /proc/PID/ns/ipc would show the whole process in the wrong namespace.
// That one is held while another goroutine, which so gets another, does it.
func runOnThread(fn func() error, done chan<- outcome) {
	runtime.LockOSThread()
	if unix.Gettid() == unix.Getpid() {
		defer runtime.UnlockOSThread()
		other := make(chan outcome, 1)
		go runOnThread(fn, other)
		done <- <-other
		return
	}
	growStack()
	o := outcome{tid: unix.Gettid(), exited: true} // until fn returns or panics
	defer func() {
		if value := recover(); value != nil {
			o.exited, o.panicked = false, &Panic{Value: value, Stack: debug.Stack()}
		}
		done <- o
	}()
	o.err = fn()
	o.exited = false
}

// usualStack is about as many bytes of stack as an operation uses.
const usualStack = 12 << 10

// growStack makes room for fn at once, while there is nothing on the stack yet. A
// new goroutine begins with 2 KiB, and each time that it needs more all of its
// frames are moved: in the midst of an operation that took a dozen microseconds.
//
//go:noinline
func growStack() byte {
	var room [usualStack]byte
	return middle(&room)
}

//go:noinline
func middle(room *[usualStack]byte) byte { return room[len(room)/2] }

// awaitEnd waits until the thread is gone, so that the namespace it was in no
// longer shows this process among its tasks nor is kept alive by it: do_exit
// (kernel/exit.c) leaves the namespaces before the thread's id goes. A thread
// that does not end is nothing to fail for.
func awaitEnd(tid int) {
	pid := unix.Getpid()
	began := time.Now()
	for time.Since(began) < time.Second {
		if unix.Tgkill(pid, tid, 0) == unix.ESRCH {
			return
		}
		if time.Since(began) < spin {
			runtime.Gosched()
			continue
		}
		time.Sleep(20 * time.Microsecond)
	}
}

// spin is how long awaitEnd looks without a pause: mostly the thread ends sooner
// than a pause does.
const spin = 100 * time.Microsecond
