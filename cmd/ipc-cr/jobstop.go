package main

import (
	"os"
	"os/signal"

	"golang.org/x/sys/unix"
)

// withoutJobStop keeps Ctrl-Z from stopping the command while it works: the tasks
// that it has stopped would be frozen for as long as it does. The signal is
// caught, not ignored, which a COMMAND would inherit. After end the Go runtime may
// go on to swallow it.
func withoutJobStop() (end func()) {
	stops := make(chan os.Signal, 1)
	signal.Notify(stops, unix.SIGTSTP)
	return func() { signal.Stop(stops) }
}
