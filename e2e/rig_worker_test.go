package e2e_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// workerEnv makes the test binary a worker: the program inside the containers,
// which numbers its messages and checks the numbers of those it gets. It holds
// the directory through which the test speaks with it, because no descriptor of
// the test's would survive a checkpoint.
const workerEnv = "IPC_CR_E2E_WORKER"

// workerLives is the end of a worker that no test ends.
const workerLives = 15 * time.Minute

// A report is what a worker knows of its work: it is in its memory, and so in
// its checkpoint.
type report struct {
	Done   map[string]int // steps of each role
	Faults []string       // what came twice, not at all or out of order
}

type worker struct {
	gate  sync.RWMutex // closed while the worker is to hold still
	mu    sync.Mutex
	known report
}

// runWorker plays the roles among the arguments, such as "produce:0x51:2000":
// what, the queue's key, and the pause after each step in microseconds.
func runWorker() (status int) {
	time.AfterFunc(workerLives, func() { os.Exit(0) })
	w := &worker{known: report{Done: map[string]int{}}}
	w.gate.Lock()
	for _, arg := range os.Args[1:] {
		step, pause, err := w.role(arg)
		if err != nil {
			fmt.Fprintf(os.Stderr, "role %q: %v\n", arg, err)
			return 2
		}
		go w.play(arg, step, pause)
	}
	w.obey(os.Getenv(workerEnv))
	return 0
}

// A stepper makes step n, and n again if that says EAGAIN or ENOMSG.
type stepper func(n int) error

func (w *worker) role(arg string) (stepper, time.Duration, error) {
	part := strings.Split(arg, ":")
	if len(part) < 3 {
		return nil, 0, errors.New("not ROLE:KEY:PAUSE")
	}
	key, keyErr := strconv.ParseInt(part[1], 0, 32)
	micros, pauseErr := strconv.Atoi(part[2])
	if err := errors.Join(keyErr, pauseErr); err != nil {
		return nil, 0, err
	}
	pause := time.Duration(micros) * time.Microsecond
	if part[0] == "churn" {
		return w.churn(int(key)), pause, nil
	}
	id, err := openQueue(int(key))
	if err != nil {
		return nil, 0, err
	}
	switch part[0] {
	case "produce":
		return func(n int) error { return send(id, numbered(n)) }, pause, nil
	case "consume":
		return w.consume(id), pause, nil
	case "move":
		to, err := openQueue(int(key) + 1)
		return w.move(id, to), pause, err
	case "back":
		to, err := openQueue(int(key) - 1)
		return w.move(id, to), pause, err
	}
	return nil, 0, errors.New("no such role")
}

func openQueue(key int) (int, error) {
	return syscallMsg(unix.SYS_MSGGET, uintptr(key), unix.IPC_CREAT|0o600, 0, 0, 0)
}

// numbered is message n: one type, and bodies of many lengths.
func numbered(n int) message {
	return message{1, fmt.Sprintf("%d %s", n, pattern(n%97))}
}

func numberOf(m message) (int, error) {
	digits, rest, _ := strings.Cut(m.Body, " ")
	n, err := strconv.Atoi(digits)
	if err == nil && rest != pattern(n%97) {
		err = fmt.Errorf("message %d has the wrong body", n)
	}
	return n, err
}

func (w *worker) play(name string, step stepper, pause time.Duration) {
	for n := 1; ; {
		w.gate.RLock()
		err := step(n)
		if err == nil {
			w.mu.Lock()
			w.known.Done[name] = n
			w.mu.Unlock()
			n++
		}
		w.gate.RUnlock()
		switch {
		case errors.Is(err, unix.EAGAIN), errors.Is(err, unix.ENOMSG):
			time.Sleep(50 * time.Microsecond)
		case err != nil:
			w.fault("%s: step %d: %v", name, n, err)
			time.Sleep(100 * time.Millisecond)
		case pause > 0:
			time.Sleep(pause)
		}
	}
}

func (w *worker) fault(format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.known.Faults) < 10 {
		w.known.Faults = append(w.known.Faults, fmt.Sprintf(format, args...))
	}
}

func (w *worker) consume(id int) stepper {
	return func(n int) error {
		m, err := take(id)
		if err != nil {
			return err
		}
		got, err := numberOf(m)
		if err != nil || got != n {
			w.fault("queue %d: message %d where %d was due: %v", id, got, n, err)
		}
		return nil
	}
}

// move takes a message out of one queue and puts it into another, as it is.
func (w *worker) move(from, to int) stepper {
	var held *message
	return func(int) error {
		if held == nil {
			m, err := take(from)
			if err != nil {
				return err
			}
			held = &m
		}
		if err := send(to, *held); err != nil {
			return err
		}
		held = nil
		return nil
	}
}

// churn makes a queue, uses it and removes it again. EEXIST says that one came
// back which was removed.
func (w *worker) churn(key int) stepper {
	return func(n int) error {
		id, err := syscallMsg(unix.SYS_MSGGET, uintptr(key+n%8), unix.IPC_CREAT|unix.IPC_EXCL|0o600, 0, 0, 0)
		if err != nil {
			return fmt.Errorf("msgget: %w", err)
		}
		if err := send(id, numbered(n)); err != nil {
			return fmt.Errorf("msgsnd: %v", err)
		}
		m, err := take(id)
		if err != nil {
			return fmt.Errorf("msgrcv: %v", err)
		}
		if m != numbered(n) {
			w.fault("queue %d gave %q for message %d", id, m.Body, n)
		}
		return removeQueue(id)
	}
}

// take receives the first message of a queue, if there is one.
func take(id int) (message, error) {
	buf := make([]byte, 8+1<<16)
	size, err := syscallMsg(unix.SYS_MSGRCV, uintptr(id), uintptr(unsafe.Pointer(&buf[0])), 1<<16, 0, unix.IPC_NOWAIT)
	if err != nil {
		return message{}, err
	}
	return messageOf(buf[:8+size]), nil
}

// obey does what the test asks: the file cmd holds a number and a word, and the
// file out gets that number and a report. A worker that was set back finds the
// last order of its other life, which it may have followed already.
func (w *worker) obey(dir string) {
	still := true
	for last := ""; ; time.Sleep(5 * time.Millisecond) {
		text, err := os.ReadFile(filepath.Join(dir, "cmd"))
		number, word, _ := strings.Cut(string(text), " ")
		if err != nil || number == last {
			continue
		}
		last = number
		switch {
		case word == "go" && still:
			w.gate.Unlock()
			still = false
		case word == "stop" && !still:
			w.gate.Lock()
			still = true
		}
		w.answer(dir, number)
	}
}

func (w *worker) answer(dir, number string) {
	w.mu.Lock()
	text, _ := json.Marshal(w.known)
	w.mu.Unlock()
	part := filepath.Join(dir, "part")
	os.WriteFile(part, fmt.Appendf(nil, "%s %s", number, text), 0o666)
	os.Rename(part, filepath.Join(dir, "out"))
}
