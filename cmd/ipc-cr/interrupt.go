package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"golang.org/x/sys/unix"
)

// interrupted is why an operation was given up: a signal.
type interrupted struct{ signal os.Signal }

func (e *interrupted) Error() string {
	if number, ok := e.signal.(syscall.Signal); ok {
		return "interrupted by " + unix.SignalName(number)
	}
	return fmt.Sprintf("interrupted by signal %v", e.signal)
}

// Is makes it a cancellation, for those who do not care whose.
func (e *interrupted) Is(target error) bool { return target == context.Canceled }

// untilSignal returns a context that one of the signals ends, and says which
// (context.Cause). They have no other effect until stop is called.
func untilSignal(parent context.Context, signals ...os.Signal) (ctx context.Context, stop func()) {
	ctx, cancel := context.WithCancelCause(parent)
	came := make(chan os.Signal, 1)
	signal.Notify(came, signals...)
	go func() {
		select {
		case s := <-came:
			cancel(&interrupted{s})
		case <-ctx.Done():
		}
	}()
	return ctx, func() {
		signal.Stop(came)
		cancel(nil)
	}
}
